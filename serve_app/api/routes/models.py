"""/models: what is served, and what each model can do."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.gateway import Gateway
from serve_app.api.jobs_gateway import JobsGateway
from serve_app.api.problems import Problem
from serve_app.api.replies import json_reply
from serve_app.api.schemas.models import Model, Models
from serve_app.domain.errors import ConflictError, ModelNotFoundError


def models_router(gateway: Gateway, jobs: JobsGateway) -> APIRouter:
    """The routes over the gateways."""
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

    @router.delete(
        "/models/{name:path}",
        status_code=204,
        responses={
            404: {"model": Problem, "description": "There is no fine-tune of this name."},
            409: {"model": Problem, "description": "It is configured, or the base of another model or of a job."},
        },
        summary="Delete a fine-tune",
    )
    async def delete(name: str) -> Response:
        """Its name is free at once; requests that are under way are answered."""
        for record in await jobs.live():
            if record.base_model == name:
                raise ConflictError(f"{name!r} is the base of the job {record.id}; cancel that first")
        await gateway.delete_model(name)
        return Response(status_code=204)

    return router
