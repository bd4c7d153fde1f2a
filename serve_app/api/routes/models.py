"""/models: what is served, and what each model can do."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.gateway import Gateway
from serve_app.api.problems import Problem
from serve_app.api.replies import json_reply
from serve_app.api.schemas.models import Model, Models
from serve_app.domain.errors import ModelNotFoundError


def models_router(gateway: Gateway) -> APIRouter:
    """The routes over a gateway."""
    router = APIRouter(tags=["models"])

    @router.get("/models", response_model=Models, summary="All served models")
    async def models() -> Response:
        """The default model first."""
        return json_reply({"models": [asdict(state) for state in await gateway.models()]})

    # a name may hold a slash, as names on the model hub do
    @router.get(
        "/models/{name:path}",
        response_model=Model,
        responses={404: {"model": Problem, "description": "No served model has this name."}},
        summary="One served model",
    )
    async def model(name: str) -> Response:
        """What one model is and can do."""
        for state in await gateway.models():
            if state.name == name:
                return json_reply(asdict(state))
        raise ModelNotFoundError(f"no model {name!r} is served; GET /models lists those that are")

    return router
