"""/v1/embed and /v2/embed of the Cohere API."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace

from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.dialects.cohere.embed_schemas import CohereEmbedReply, CohereEmbedRequest, CohereV1EmbedReply
from serve_app.api.dialects.input_types import role_of
from serve_app.api.dialects.openai.openai_errors import OPENAI_ERRORS
from serve_app.api.dialects.tolerant_request import TolerantRoute
from serve_app.api.encoding.json_stream import Members, Node, matrix, stream_reply
from serve_app.api.encoding.quantize import FORMS, require_normalized, shortened
from serve_app.api.inference_results import Embedded
from serve_app.api.request_options import TimeoutHeader, tolerant_options, validate_dimensions
from serve_app.api.route_services import Services, ServicesDep
from serve_app.api.validated_texts import field_errors, listed_texts
from serve_app.domain.embeddings import Float32

router = APIRouter(tags=["Cohere"], responses=OPENAI_ERRORS, route_class=TolerantRoute)


@router.post("/v2/embed", response_model=CohereEmbedReply, summary="Embed texts (Cohere v2)")
async def embed(services: ServicesDep, request: CohereEmbedRequest, timeout_header: TimeoutHeader = None) -> Response:
    """Embeds texts, by default as documents, and gives their vectors in one or several forms."""
    embedded, vectors = await _embed(services, request, timeout_header)
    pieces = _by_type(vectors, request.embedding_types or ["float"])
    return _reply(embedded, request.texts, pieces, "embeddings_by_type", "2")


@router.post("/v1/embed", response_model=CohereV1EmbedReply, summary="Embed texts (Cohere v1)")
async def embed_v1(
    services: ServicesDep, request: CohereEmbedRequest, timeout_header: TimeoutHeader = None
) -> Response:
    """Embeds texts, by default as documents and to one plain list of vectors."""
    embedded, vectors = await _embed(services, request, timeout_header)
    if request.embedding_types is None:
        return _reply(embedded, request.texts, matrix(vectors), "embeddings_floats", "1")
    pieces = _by_type(vectors, request.embedding_types)
    return _reply(embedded, request.texts, pieces, "embeddings_by_type", "1")


async def _embed(services: Services, request: CohereEmbedRequest, header: str | None) -> tuple[Embedded, Float32]:
    """The embedded texts, and their vectors with the requested number of dimensions."""
    for name in request.embedding_types or []:
        require_normalized(name, "embedding_types", normalize=request.normalize)
    options = replace(tolerant_options(request, header, services.limits), normalize=request.normalize)
    await validate_dimensions(services.inference, options, request.dimensions, field="output_dimension")
    texts = listed_texts(request.texts, services.limits, field="texts")
    with field_errors(texts):
        embedded = await services.inference.embed(texts.values, role_of(request.input_type), options)
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
