"""/v2/embed, as Cohere's v2 clients speak; /v2/rerank is in ``rerank``."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse

from serve_app.api.body import StrictRoute
from serve_app.api.gateway import CallOptions, Gateway
from serve_app.api.options import TimeoutHeader, prove_dimensions, timeout_s
from serve_app.api.problems import OPENAI_ERRORS
from serve_app.api.quantised import as_base64, as_binary, as_int8, as_ubinary, as_uint8, shortened
from serve_app.api.replies import dumps, matrix_pieces, truncation_headers
from serve_app.api.schemas.cohere import CohereEmbedReply, CohereEmbedRequest, EmbeddingType
from serve_app.api.texts import listed_texts, naming
from serve_app.domain.embeddings import Float32
from serve_app.domain.limits import Limits
from serve_app.domain.profiles import TextRole

_FORMS: dict[EmbeddingType, Callable[[Float32], Any]] = {
    "float": np.ascontiguousarray,
    "int8": as_int8,
    "uint8": as_uint8,
    "binary": as_binary,
    "ubinary": as_ubinary,
    "base64": as_base64,
}


def cohere_router(gateway: Gateway, limits: Limits) -> APIRouter:
    """The routes over a gateway."""
    router = APIRouter(tags=["Cohere"], responses=OPENAI_ERRORS, route_class=StrictRoute)

    @router.post("/v2/embed", response_model=CohereEmbedReply, summary="Vectors as Cohere's v2 clients ask for them")
    async def embed(request: CohereEmbedRequest, wanted_timeout: TimeoutHeader = None) -> Response:
        """Embeds texts and gives their vectors in one or several forms."""
        # E5's card: "query" where a vector is compared with its like or used as a feature
        role = TextRole.of(is_query=request.input_type != "search_document")
        options = CallOptions(request.model, request.truncate == "END", timeout_s(wanted_timeout, limits))
        texts = listed_texts(request.texts, limits, field="texts")
        await prove_dimensions(gateway, options, request.output_dimension, field="output_dimension")
        with naming(texts):
            embedded = await gateway.embed(texts.values, role, options)
        tail = {
            "id": str(uuid.uuid4()),
            "response_type": "embeddings_by_type",
            "model": embedded.model,
            "texts": request.texts,
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": embedded.tokens}},
        }
        vectors = shortened(embedded.vectors, request.output_dimension, field="output_dimension")
        return StreamingResponse(
            _pieces(vectors, request.embedding_types, tail),
            headers=truncation_headers(embedded.truncated),
            media_type="application/json",
        )

    return router


async def _pieces(vectors: Float32, types: list[EmbeddingType], tail: dict[str, Any]) -> AsyncIterator[bytes]:
    yield b'{"embeddings":{'
    for i, name in enumerate(dict.fromkeys(types)):
        yield (b"," if i else b"") + dumps(name) + b":"
        async for piece in matrix_pieces(vectors, _FORMS[name]):
            yield piece
    yield b"}," + dumps(tail)[1:]
