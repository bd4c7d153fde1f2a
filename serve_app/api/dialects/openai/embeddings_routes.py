"""/v1/embeddings and /v1/models, as OpenAI's clients speak."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.responses import Response

from serve_app.api.dialects.foreign_fields import InputTypeField, role_of
from serve_app.api.dialects.openai.embeddings_schemas import (
    EmbeddingsReply,
    EmbeddingsRequest,
    OpenAIModel,
    OpenAIModelDeleted,
    OpenAIModels,
)
from serve_app.api.dialects.text_or_ids import are_ids, embed_inputs
from serve_app.api.dialects.tolerant_request import TolerantRoute
from serve_app.api.encoding.binary import BINARY, AcceptHeader, binary_dtype, binary_reply
from serve_app.api.encoding.json_stream import Batches, Members, json_reply, row_slices, stream_reply
from serve_app.api.encoding.quantize import FORMS, as_base64, require_normalized, shortened
from serve_app.api.error_responses import OPENAI_ERRORS, OpenAIProblem
from serve_app.api.jobs_service import JobsProtocol
from serve_app.api.model_deletion import IN_USE, delete_model
from serve_app.api.model_lookup import state_of
from serve_app.api.request_options import TimeoutHeader, tolerant_options, validate_dimensions
from serve_app.api.service import ServiceProtocol
from serve_app.api.service_results import ModelState
from serve_app.domain.embeddings import Float32
from serve_app.domain.errors import InvalidInputError
from serve_app.domain.request_limits import Limits

_OWNER = "retrieval-model-server"

InputTypeHeader = Annotated[
    InputTypeField | None,
    Header(alias="X-Input-Type", description="As `input_type`, for clients that can not add a field to the body."),
]


def openai_router(gateway: ServiceProtocol, jobs: JobsProtocol, limits: Limits) -> APIRouter:
    """The routes over a gateway."""
    router = APIRouter(tags=["OpenAI"], route_class=TolerantRoute)

    @router.post(
        "/embeddings",
        response_model=EmbeddingsReply,
        responses=OPENAI_ERRORS | BINARY,
        summary="The same as /v1/embeddings",
    )
    @router.post(
        "/v1/embeddings",
        response_model=EmbeddingsReply,
        responses=OPENAI_ERRORS | BINARY,
        summary="Vectors as OpenAI's clients ask for them",
    )
    async def embeddings(
        request: EmbeddingsRequest,
        wanted_timeout: TimeoutHeader = None,
        accept: AcceptHeader = "",
        header_type: InputTypeHeader = None,
    ) -> Response:
        """Embeds one or many texts, by default as passages."""
        dtype = binary_dtype(accept)
        if dtype is not None and request.output_dtype not in {"float", "base64"}:
            raise InvalidInputError("header Accept: bytes are for floats alone; leave out output_dtype")
        require_normalized(request.output_dtype, "output_dtype", normalize=request.normalize)
        input_type = request.input_type or header_type
        if input_type is not None and are_ids(request.input):
            raise InvalidInputError("input_type: token ids are taken as they are; leave it out")
        options = replace(tolerant_options(request, wanted_timeout, limits), normalize=request.normalize)
        await validate_dimensions(gateway, options, request.dimensions)
        embedded = await embed_inputs(gateway, request.input, role_of(input_type), options, limits, field="input")
        vectors = shortened(embedded.vectors, request.dimensions, normalize=request.normalize)
        if dtype is not None:
            return binary_reply(vectors, dtype, truncated=embedded.truncated)
        usage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
        data = Batches(_batches(vectors, _form(request)))
        reply = {"object": "list", "data": data, "model": embedded.model, "usage": usage}
        return stream_reply(Members(reply), truncated=embedded.truncated)

    @router.get("/v1/models", response_model=OpenAIModels, summary="All served models, as OpenAI lists them")
    async def models() -> Response:
        """The default model first."""
        return json_reply({"object": "list", "data": [openai_model(state) for state in await gateway.models()]})

    @router.get(
        "/v1/models/{id:path}",
        response_model=OpenAIModel,
        responses={404: OPENAI_ERRORS[404]},
        summary="One served model, as OpenAI shows it",
    )
    async def model(id: str) -> Response:
        """What is known of one model."""
        return json_reply(openai_model(state_of(id, await gateway.models(), listed_at="GET /v1/models")))

    @router.delete(
        "/v1/models/{id:path}",
        response_model=OpenAIModelDeleted,
        responses={404: OPENAI_ERRORS[404], 409: {"model": OpenAIProblem, "description": IN_USE}},
        summary="Delete a fine-tune, as OpenAI does",
    )
    async def delete(id: str) -> Response:
        """Its name is free at once; requests that are under way are answered."""
        name = await delete_model(id, gateway, jobs)
        return json_reply({"id": name, "object": "model", "deleted": True})

    return router


def _form(request: EmbeddingsRequest) -> Callable[[Float32], Any]:
    """The conversion of vectors into the values of a reply, one for each row."""
    form = FORMS[request.output_dtype]
    if request.encoding_format == "float" or request.output_dtype == "base64":
        return form
    return lambda vectors: as_base64(form(vectors))


def _batches(vectors: Float32, form: Callable[[Float32], Any]) -> Iterator[list[dict[str, Any]]]:
    for start, end in row_slices(vectors):
        rows = enumerate(form(vectors[start:end]), start)
        yield [{"object": "embedding", "index": i, "embedding": row} for i, row in rows]


def openai_model(state: ModelState) -> dict[str, Any]:
    """A served model as OpenAI's clients read it."""
    made = {"created": _unix_time(state.created), "owned_by": _OWNER, "parent": state.base}
    return {"id": state.name, "object": "model", **made}


def _unix_time(created: str | None) -> int:
    try:
        return int(datetime.fromisoformat(created or "").timestamp())
    except (TypeError, ValueError):  # not a fine-tune, or one whose manifest somebody else has written
        return 0
