"""/models: what is served, and what each model can do."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.dialects.native.models_schemas import Model, Models
from serve_app.api.dialects.openai.embeddings_routes import openai_model
from serve_app.api.encoding.json_stream import json_reply
from serve_app.api.error_responses import Problem
from serve_app.api.jobs_service import JobsProtocol
from serve_app.api.model_deletion import IN_USE, delete_model
from serve_app.api.model_lookup import state_of
from serve_app.api.service import ServiceProtocol
from serve_app.api.service_results import ModelState


def models_router(gateway: ServiceProtocol, jobs: JobsProtocol) -> APIRouter:
    """The routes over the gateways."""
    router = APIRouter(tags=["models"])

    @router.get("/models", response_model=Models, summary="All served models")
    async def models() -> Response:
        """The default model first; `data` is the same as infinity's clients and others read it."""
        states = await gateway.models()
        ours, data = [asdict(state) for state in states], [_listed(state) for state in states]
        return json_reply({"object": "list", "models": ours, "data": data})

    # a name may hold a slash, as names on the model hub do
    @router.get(
        "/models/{name:path}",
        response_model=Model,
        responses={404: {"model": Problem, "description": "No served model has this name."}},
        summary="One served model",
    )
    async def model(name: str) -> Response:
        """What one model is and can do."""
        return json_reply(asdict(state_of(name, await gateway.models(), listed_at="GET /models")))

    @router.delete(
        "/models/{name:path}",
        status_code=204,
        responses={
            404: {"model": Problem, "description": "There is no fine-tune of this name."},
            409: {"model": Problem, "description": IN_USE},
        },
        summary="Delete a fine-tune",
    )
    async def delete(name: str) -> Response:
        """Its name is free at once; requests that are under way are answered."""
        await delete_model(name, gateway, jobs)
        return Response(status_code=204)

    return router


def _listed(state: ModelState) -> dict[str, Any]:
    """A model as infinity's clients list it: they refuse any other owner than their own service."""
    listed = {key: value for key, value in openai_model(state).items() if key != "owned_by"}
    return {**listed, "stats": {}, "backend": "torch", "capabilities": list(state.serves)}
