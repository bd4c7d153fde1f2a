"""/v1/embed and /v2/embed, as Cohere's clients speak; /v1/rerank and /v2/rerank are in ``rerank``."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse

from serve_app.api.body import StrictRoute
from serve_app.api.gateway import CallOptions, Embedded, Gateway
from serve_app.api.options import TimeoutHeader, prove_dimensions, timeout_s
from serve_app.api.problems import OPENAI_ERRORS
from serve_app.api.quantised import as_base64, as_binary, as_int8, as_ubinary, as_uint8, shortened
from serve_app.api.replies import dumps, matrix_pieces, truncation_headers
from serve_app.api.schemas.cohere import (
    CohereEmbedReply,
    CohereEmbedRequest,
    CohereV1EmbedReply,
    CohereV1EmbedRequest,
    EmbeddingType,
    InputType,
)
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
        options = CallOptions(request.model, request.truncate == "END", timeout_s(wanted_timeout, limits))
        await prove_dimensions(gateway, options, request.output_dimension, field="output_dimension")
        embedded = await _embed(gateway, request.texts, request.input_type, options, limits)
        vectors = shortened(embedded.vectors, request.output_dimension, field="output_dimension")
        return _reply(embedded, request.texts, _by_type(vectors, request.embedding_types), "embeddings_by_type", "2")

    @router.post("/v1/embed", response_model=CohereV1EmbedReply, summary="Vectors as Cohere's v1 clients ask for them")
    async def embed_v1(request: CohereV1EmbedRequest, wanted_timeout: TimeoutHeader = None) -> Response:
        """Embeds texts, by default as documents and to one plain list of vectors."""
        options = CallOptions(request.model, request.truncate != "NONE", timeout_s(wanted_timeout, limits))
        embedded = await _embed(gateway, request.texts, request.input_type or "search_document", options, limits)
        if request.embedding_types is None:
            return _reply(embedded, request.texts, matrix_pieces(embedded.vectors), "embeddings_floats", "1")
        pieces = _by_type(embedded.vectors, request.embedding_types)
        return _reply(embedded, request.texts, pieces, "embeddings_by_type", "1")

    return router


async def _embed(
    gateway: Gateway, given: list[str], input_type: InputType, options: CallOptions, limits: Limits
) -> Embedded:
    # E5's card: "query" where a vector is compared with its like or used as a feature
    role = TextRole.of(is_query=input_type != "search_document")
    texts = listed_texts(given, limits, field="texts")
    with naming(texts):
        return await gateway.embed(texts.values, role, options)


def _reply(
    embedded: Embedded, texts: list[str], vectors: AsyncIterator[bytes], response_type: str, version: str
) -> Response:
    """The reply around the JSON of the vectors."""
    tail = {
        "id": str(uuid.uuid4()),
        "response_type": response_type,
        "model": embedded.model,
        "texts": texts,
        "meta": {"api_version": {"version": version}, "billed_units": {"input_tokens": embedded.tokens}},
    }
    headers = truncation_headers(embedded.truncated)
    return StreamingResponse(_around(vectors, tail), headers=headers, media_type="application/json")


async def _around(vectors: AsyncIterator[bytes], tail: dict[str, Any]) -> AsyncIterator[bytes]:
    yield b'{"embeddings":'
    async for piece in vectors:
        yield piece
    yield b"," + dumps(tail)[1:]


async def _by_type(vectors: Float32, types: list[EmbeddingType]) -> AsyncIterator[bytes]:
    for i, name in enumerate(dict.fromkeys(types)):
        yield (b"," if i else b"{") + dumps(name) + b":"
        async for piece in matrix_pieces(vectors, _FORMS[name]):
            yield piece
    yield b"}"
