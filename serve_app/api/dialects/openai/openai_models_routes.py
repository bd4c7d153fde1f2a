"""/v1/models: served models, in OpenAI's form."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.dialects.openai.embeddings_schemas import OpenAIModel, OpenAIModelDeleted, OpenAIModels
from serve_app.api.dialects.openai.openai_errors import OPENAI_ERRORS, OpenAIErrorBody
from serve_app.api.dialects.tolerant_request import TolerantRoute
from serve_app.api.encoding.json_stream import json_reply
from serve_app.api.model_deletion import IN_USE, delete_model
from serve_app.api.model_lookup import state_of
from serve_app.api.model_states import ModelState
from serve_app.api.route_services import ServicesDep

_OWNER = "retrieval-model-server"

router = APIRouter(tags=["OpenAI"], route_class=TolerantRoute)


@router.get("/v1/models", response_model=OpenAIModels, summary="List models")
async def models(services: ServicesDep) -> Response:
    """The default model first."""
    return json_reply({"object": "list", "data": [openai_model(state) for state in await services.inference.models()]})


@router.get(
    "/v1/models/{id:path}", response_model=OpenAIModel, responses={404: OPENAI_ERRORS[404]}, summary="Get a model"
)
async def model(services: ServicesDep, id: str) -> Response:
    """State and capabilities of one model."""
    return json_reply(openai_model(state_of(id, await services.inference.models(), listed_at="GET /v1/models")))


@router.delete(
    "/v1/models/{id:path}",
    response_model=OpenAIModelDeleted,
    responses={404: OPENAI_ERRORS[404], 409: {"model": OpenAIErrorBody, "description": IN_USE}},
    summary="Delete a fine-tune",
)
async def delete(services: ServicesDep, id: str) -> Response:
    """Its name is free at once; requests in flight are answered."""
    name = await delete_model(id, services.inference, services.jobs)
    return json_reply({"id": name, "object": "model", "deleted": True})


def openai_model(state: ModelState) -> dict[str, Any]:
    """A served model in OpenAI's form."""
    made = {"created": _unix_time(state.created), "owned_by": _OWNER, "parent": state.base}
    return {"id": state.name, "object": "model", **made}


def _unix_time(created: str | None) -> int:
    try:
        return int(datetime.fromisoformat(created or "").timestamp())
    except (TypeError, ValueError):  # not a fine-tune, or one with a manifest of other origin
        return 0
