"""/v1/embed and /v2/embed, as Cohere's clients speak; /v1/rerank and /v2/rerank are in ``rerank``."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace

from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.dialects.cohere.embed_schemas import (
    CohereEmbedReply,
    CohereEmbedRequest,
    CohereV1EmbedReply,
)
from serve_app.api.dialects.foreign_fields import role_of
from serve_app.api.dialects.tolerant_request import TolerantRoute
from serve_app.api.encoding.json_stream import Members, Node, matrix, stream_reply
from serve_app.api.encoding.quantize import FORMS, require_normalized, shortened
from serve_app.api.error_responses import OPENAI_ERRORS
from serve_app.api.request_options import TimeoutHeader, tolerant_options, validate_dimensions
from serve_app.api.service import ServiceProtocol
from serve_app.api.service_results import Embedded
from serve_app.api.validated_texts import listed_texts, naming
from serve_app.domain.embeddings import Float32
from serve_app.domain.request_limits import Limits


def cohere_router(gateway: ServiceProtocol, limits: Limits) -> APIRouter:
    """The routes over a gateway."""
    router = APIRouter(tags=["Cohere"], responses=OPENAI_ERRORS, route_class=TolerantRoute)

    @router.post("/v2/embed", response_model=CohereEmbedReply, summary="Vectors as Cohere's v2 clients ask for them")
    async def embed(request: CohereEmbedRequest, wanted_timeout: TimeoutHeader = None) -> Response:
        """Embeds texts, by default as documents, and gives their vectors in one or several forms."""
        embedded, vectors = await _embed(gateway, request, wanted_timeout, limits)
        pieces = _by_type(vectors, request.embedding_types or ["float"])
        return _reply(embedded, request.texts, pieces, "embeddings_by_type", "2")

    @router.post("/v1/embed", response_model=CohereV1EmbedReply, summary="Vectors as Cohere's v1 clients ask for them")
    async def embed_v1(request: CohereEmbedRequest, wanted_timeout: TimeoutHeader = None) -> Response:
        """Embeds texts, by default as documents and to one plain list of vectors."""
        embedded, vectors = await _embed(gateway, request, wanted_timeout, limits)
        if request.embedding_types is None:
            return _reply(embedded, request.texts, matrix(vectors), "embeddings_floats", "1")
        pieces = _by_type(vectors, request.embedding_types)
        return _reply(embedded, request.texts, pieces, "embeddings_by_type", "1")

    return router


async def _embed(
    gateway: ServiceProtocol, request: CohereEmbedRequest, header: str | None, limits: Limits
) -> tuple[Embedded, Float32]:
    """What was embedded, and its vectors with as many dimensions as were asked for."""
    for name in request.embedding_types or []:
        require_normalized(name, "embedding_types", normalize=request.normalize)
    options = replace(tolerant_options(request, header, limits), normalize=request.normalize)
    await validate_dimensions(gateway, options, request.dimensions, field="output_dimension")
    texts = listed_texts(request.texts, limits, field="texts")
    with naming(texts):
        embedded = await gateway.embed(texts.values, role_of(request.input_type), options)
    return embedded, shortened(embedded.vectors, request.dimensions, normalize=request.normalize)


def _reply(embedded: Embedded, texts: list[str], vectors: Node, response_type: str, version: str) -> Response:
    """The reply around the vectors."""
    reply = {
        "embeddings": vectors,
        "id": str(uuid.uuid4()),
        "response_type": response_type,
        "model": embedded.model,
        "texts": texts,
        "meta": {
            "api_version": {"version": version},
            "billed_units": {"input_tokens": embedded.tokens},
            "tokens": {"input_tokens": embedded.tokens, "output_tokens": 0},
        },
    }
    return stream_reply(Members(reply), truncated=embedded.truncated)


def _by_type(vectors: Float32, types: Sequence[str]) -> Members:
    return Members({name: matrix(vectors, FORMS[name]) for name in dict.fromkeys(types)})
