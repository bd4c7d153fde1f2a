"""/models: served models and their capabilities."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.dialects.documented_errors import documented
from serve_app.api.dialects.native.models_schemas import Model, Models
from serve_app.api.dialects.native.native_errors import ErrorBody
from serve_app.api.dialects.openai.openai_models_routes import openai_model
from serve_app.api.encoding.json_stream import json_reply
from serve_app.api.model_deletion import IN_USE, delete_model
from serve_app.api.model_lookup import state_of
from serve_app.api.model_states import ModelState
from serve_app.api.route_services import ServicesDep

router = APIRouter(tags=["models"])


@router.get("/models", response_model=Models, summary="List models")
async def models(services: ServicesDep) -> Response:
    """The default model first; `data` has the same models in the form of infinity's clients."""
    states = await services.inference.models()
    data = [_listed(state) for state in states]
    return json_reply({"object": "list", "models": [asdict(state) for state in states], "data": data})


# a name may hold a slash, as names on the model hub do
@router.get(
    "/models/{name:path}",
    response_model=Model,
    responses=documented(ErrorBody, {404: "No served model has this name."}),
    summary="Get a model",
)
async def model(services: ServicesDep, name: str) -> Response:
    """State and capabilities of one model."""
    return json_reply(asdict(state_of(name, await services.inference.models(), listed_at="GET /models")))


@router.delete(
    "/models/{name:path}",
    status_code=204,
    responses=documented(ErrorBody, {404: "No fine-tune has this name.", 409: IN_USE}),
    summary="Delete a fine-tune",
)
async def delete(services: ServicesDep, name: str) -> Response:
    """Its name is free at once; requests in flight are answered."""
    await delete_model(name, services.inference, services.jobs)
    return Response(status_code=204)


def _listed(state: ModelState) -> dict[str, Any]:
    """A model in infinity's form; its clients refuse an unknown `owned_by`."""
    listed = {key: value for key, value in openai_model(state).items() if key != "owned_by"}
    return {**listed, "stats": {}, "backend": "torch", "capabilities": list(state.serves)}
