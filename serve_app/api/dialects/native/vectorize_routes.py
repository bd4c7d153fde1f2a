"""/vectorize and /vectorize-batch: text in, dense vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter
from fastapi.responses import Response
from numpy.typing import NDArray

from serve_app.api.dialects.native.native_errors import ERRORS
from serve_app.api.dialects.native.vectorize_schemas import (
    VectorizeBatchReply,
    VectorizeBatchRequest,
    VectorizeReply,
    VectorizeRequest,
)
from serve_app.api.encoding.binary import BINARY, AcceptHeader, binary_dtype, binary_reply
from serve_app.api.encoding.json_stream import Members, is_small, json_reply, matrix, stream_reply
from serve_app.api.encoding.quantize import quantize
from serve_app.api.request_options import TimeoutHeader, known_name, options_of
from serve_app.api.route_services import ServicesDep
from serve_app.api.strict_json import StrictRoute
from serve_app.api.validated_texts import batch_texts, field_errors, single_text
from serve_app.domain.profiles import TextRole

router = APIRouter(tags=["vectors"], responses=ERRORS, route_class=StrictRoute)


@router.post("/vectorize", response_model=VectorizeReply, responses=BINARY, summary="Embed one text")
async def vectorize(
    services: ServicesDep, request: VectorizeRequest, timeout_header: TimeoutHeader = None, accept: AcceptHeader = ""
) -> Response:
    """Embeds one text, by default as a search query."""
    dtype = binary_dtype(accept, request.encoding)
    texts = single_text(request.text, services.limits)
    role = TextRole.of(is_query=request.is_query)
    with field_errors(texts):
        embedded = await services.inference.embed(
            texts.values, role, options_of(request, timeout_header, services.limits)
        )
    vectors = quantize(embedded.vectors, request.encoding)
    if dtype is not None:
        return binary_reply(vectors, dtype, truncated=embedded.truncated)
    return json_reply({"vector": vectors[0]}, truncated=embedded.truncated)


@router.post("/vectorize-batch", response_model=VectorizeBatchReply, responses=BINARY, summary="Embed many texts")
async def vectorize_batch(
    services: ServicesDep,
    request: VectorizeBatchRequest,
    timeout_header: TimeoutHeader = None,
    accept: AcceptHeader = "",
) -> Response:
    """Embeds many texts, by default as passages; an empty `items` gets an empty reply."""
    dtype = binary_dtype(accept, request.encoding)
    texts = batch_texts(request.items, services.limits)
    options = options_of(request, timeout_header, services.limits)
    if not texts.values:
        await known_name(services.inference, options, "embed")
        if dtype is not None:
            return binary_reply(np.empty((0, 0)), dtype)
        return json_reply({"vectors": {} if isinstance(request.items, dict) else []})
    role = TextRole.of(is_query=request.is_query)
    with field_errors(texts):
        embedded = await services.inference.embed(texts.values, role, options)
    vectors = quantize(embedded.vectors, request.encoding)
    if dtype is not None:
        return binary_reply(vectors, dtype, truncated=embedded.truncated)
    return vectors_reply(vectors, texts.ids, embedded.truncated)


def vectors_reply(vectors: NDArray[Any], ids: Sequence[str] | None, truncated: Sequence[int]) -> Response:
    """``{"vectors": [[f]]}``, or ``{"vectors": {id: [f]}}`` with ``ids``, one for each row; large ones are streamed."""
    if is_small(vectors):
        rows: Any = vectors if ids is None else dict(zip(ids, vectors, strict=True))
        return json_reply({"vectors": rows}, truncated=truncated)
    node = matrix(vectors) if ids is None else Members(zip(ids, vectors, strict=True))
    return stream_reply(Members({"vectors": node}), truncated=truncated)
