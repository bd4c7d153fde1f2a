"""/v1/embeddings and /v1/models, as OpenAI's clients speak."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header
from fastapi.responses import Response, StreamingResponse

from serve_app.api.binary import BINARY, AcceptHeader, binary_dtype, binary_reply
from serve_app.api.body import StrictRoute
from serve_app.api.gateway import Gateway, ModelState
from serve_app.api.inputs import are_ids, embed_inputs
from serve_app.api.options import TimeoutHeader, options_of, prove_dimensions
from serve_app.api.problems import OPENAI_ERRORS
from serve_app.api.quantised import as_base64, shortened
from serve_app.api.replies import dumps, json_reply, piece_rows, truncation_headers
from serve_app.api.schemas.openai import EmbeddingsReply, EmbeddingsRequest, InputType, OpenAIModel, OpenAIModels
from serve_app.domain.embeddings import Float32
from serve_app.domain.errors import InvalidInputError, ModelNotFoundError
from serve_app.domain.limits import Limits
from serve_app.domain.profiles import TextRole

_OWNER = "retrieval-model-server"

InputTypeHeader = Annotated[
    InputType | None,
    Header(alias="X-Input-Type", description="As `input_type`, for clients that can not add a field to the body."),
]


def openai_router(gateway: Gateway, limits: Limits) -> APIRouter:
    """The routes over a gateway."""
    router = APIRouter(tags=["OpenAI"], route_class=StrictRoute)

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
        input_type = request.input_type or header_type
        if input_type is not None and are_ids(request.input):
            raise InvalidInputError("input_type: token ids are taken as they are; leave it out")
        role, options = TextRole(input_type or TextRole.PASSAGE), options_of(request, wanted_timeout, limits)
        await prove_dimensions(gateway, options, request.dimensions)
        embedded = await embed_inputs(gateway, request.input, role, options, limits, field="input")
        vectors = shortened(embedded.vectors, request.dimensions)
        if dtype is not None:
            return binary_reply(vectors, dtype, truncated=embedded.truncated)
        usage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
        return StreamingResponse(
            _pieces(vectors, request.encoding_format, {"model": embedded.model, "usage": usage}),
            headers=truncation_headers(embedded.truncated),
            media_type="application/json",
        )

    @router.get("/v1/models", response_model=OpenAIModels, summary="All served models, as OpenAI lists them")
    async def models() -> Response:
        """The default model first."""
        return json_reply({"object": "list", "data": [_model(state) for state in await gateway.models()]})

    @router.get(
        "/v1/models/{id:path}",
        response_model=OpenAIModel,
        responses={404: OPENAI_ERRORS[404]},
        summary="One served model, as OpenAI shows it",
    )
    async def model(id: str) -> Response:
        """What is known of one model."""
        for state in await gateway.models():
            if state.name == id:
                return json_reply(_model(state))
        raise ModelNotFoundError(f"no model {id!r} is served; GET /v1/models lists those that are")

    return router


async def _pieces(vectors: Float32, encoding: Literal["float", "base64"], tail: dict[str, Any]) -> AsyncIterator[bytes]:
    """The reply in pieces that hold the event loop for a moment only."""
    yield b'{"object":"list","data":['
    step = piece_rows(vectors)
    for start in range(0, len(vectors), step):
        part = vectors[start : start + step]
        rows = as_base64(part) if encoding == "base64" else list(part)
        items = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows, start)]
        yield (b"," if start else b"") + dumps(items)[1:-1]
        await asyncio.sleep(0)
    yield b"]," + dumps(tail)[1:]


def _model(state: ModelState) -> dict[str, Any]:
    made = {"created": _unix_time(state.created), "owned_by": _OWNER, "parent": state.base}
    return {"id": state.name, "object": "model", **made}


def _unix_time(created: str | None) -> int:
    try:
        return int(datetime.fromisoformat(created or "").timestamp())
    except (TypeError, ValueError):  # not a fine-tune, or one whose manifest somebody else has written
        return 0
