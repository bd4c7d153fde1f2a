"""/vectorize-hybrid and /vectorize-batch-hybrid: text in, dense, sparse and ColBERT out, from one forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.dialects.native.hybrid_schemas import (
    HybridBatchReply,
    HybridBatchRequest,
    HybridReply,
    HybridRequest,
)
from serve_app.api.dialects.native.native_errors import ERRORS
from serve_app.api.encoding.binary import BINARY, AcceptHeader, binary_dtype, binary_reply, colbert_reply
from serve_app.api.encoding.json_stream import Elements, Members, json_reply, matrix, stream_reply
from serve_app.api.inference_results import HybridEmbedded
from serve_app.api.request_options import TimeoutHeader, known_name, options_of
from serve_app.api.route_services import ServicesDep
from serve_app.api.strict_json import StrictRoute
from serve_app.api.validated_texts import batch_texts, field_errors, single_text
from serve_app.domain.errors import InvalidInputError

router = APIRouter(tags=["vectors"], responses=ERRORS, route_class=StrictRoute)


@router.post("/vectorize-hybrid", response_model=HybridReply, summary="Dense, sparse and ColBERT vectors of one text")
async def vectorize_hybrid(
    services: ServicesDep, request: HybridRequest, timeout_header: TimeoutHeader = None
) -> Response:
    """Dense, sparse and, on request, ColBERT vectors of one text; needs a BGE-M3 model."""
    texts = single_text(request.text, services.limits)
    options = options_of(request, timeout_header, services.limits)
    with field_errors(texts):
        embedded = await services.inference.encode(
            texts.values, options, colbert=request.return_colbert, by_id=request.sparse_format == "ids"
        )
    return stream_reply(Members({"hybrid_vector": _row(embedded, 0)}), truncated=embedded.truncated)


@router.post(
    "/vectorize-batch-hybrid",
    response_model=HybridBatchReply,
    responses=BINARY,
    summary="Dense, sparse and ColBERT vectors of many texts",
)
async def vectorize_batch_hybrid(
    services: ServicesDep, request: HybridBatchRequest, timeout_header: TimeoutHeader = None, accept: AcceptHeader = ""
) -> Response:
    """As /vectorize-hybrid for many texts; an empty `items` gets an empty reply.

    With `Accept: application/octet-stream` the ColBERT vectors alone, one text after the other; the header
    `X-Lengths` has the number of vectors of each text.
    """
    dtype = binary_dtype(accept)
    if dtype is not None and not request.return_colbert:
        raise InvalidInputError("header Accept: bytes are for ColBERT vectors alone; send return_colbert: true")
    texts = batch_texts(request.items, services.limits)
    options = options_of(request, timeout_header, services.limits)
    if not texts.values:
        await known_name(services.inference, options, "hybrid")
        if dtype is not None:
            return binary_reply(np.empty((0, 0)), dtype, lengths=[])
        return json_reply({"hybrid_vectors": {} if isinstance(request.items, dict) else []})
    with field_errors(texts):
        embedded = await services.inference.encode(
            texts.values, options, colbert=request.return_colbert, by_id=request.sparse_format == "ids"
        )
    if dtype is not None and embedded.colbert is not None:
        return colbert_reply(embedded.colbert, dtype, truncated=embedded.truncated)
    return hybrid_reply(embedded, texts.ids)


def hybrid_reply(embedded: HybridEmbedded, ids: Sequence[str] | None = None) -> Response:
    """``{"hybrid_vectors": [...]}``, or by id with ``ids``; streamed."""
    rows = (_row(embedded, i) for i in range(len(embedded.vectors)))
    node = Elements(rows) if ids is None else Members(zip(ids, rows, strict=True))
    return stream_reply(Members({"hybrid_vectors": node}), truncated=embedded.truncated)


def _row(embedded: HybridEmbedded, row: int) -> Members:
    colbert = None if embedded.colbert is None else matrix(embedded.colbert[row])
    return Members({"dense": embedded.vectors[row], "sparse": _sparse(embedded, row), "colbert": colbert})


def _sparse(embedded: HybridEmbedded, row: int) -> Any:
    if embedded.weights is None:
        return embedded.sparse[row]
    weights = sorted(embedded.weights[row])
    return {"indices": [id for id, _ in weights], "values": [weight for _, weight in weights]}
