"""The services behind the routes of an application, given to route handlers by FastAPI's dependency injection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from serve_app.api.inference_protocol import InferenceProtocol
from serve_app.api.jobs_protocol import JobsProtocol
from serve_app.domain.request_limits import FineTuneLimits, Limits


@dataclass(frozen=True)
class Services:
    """Dependencies of the route handlers; ``create_app`` puts them into ``app.state.services``.

    Attributes:
        inference: Encodes and scores texts, lists models.
        jobs: Fine-tuning jobs and uploaded files.
        limits: Limits of a request.
        fine_tune_limits: Limits of a fine-tune.
    """

    inference: InferenceProtocol
    jobs: JobsProtocol
    limits: Limits
    fine_tune_limits: FineTuneLimits


async def _services(request: Request) -> Services:  # async: FastAPI runs other dependencies in a thread
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]
