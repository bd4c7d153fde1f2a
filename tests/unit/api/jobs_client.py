"""The fine-tuning and job routes alone, over fake jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import cast

import httpx
from fastapi import FastAPI

from serve_app.api import error_responses
from serve_app.api.dialects.native import fine_tune_routes, jobs_routes
from serve_app.api.dialects.openai import files_routes, fine_tuning_jobs_routes
from serve_app.api.inference_protocol import InferenceProtocol
from serve_app.api.jobs_protocol import JobsProtocol
from serve_app.api.route_services import Services
from serve_app.domain.request_limits import FineTuneLimits, Limits
from tests.unit.api.delegate import Delegate
from tests.unit.api.fake_jobs import FakeJobs

LIMITS = FineTuneLimits(
    max_examples=6, max_text_chars=50, max_listed=2, max_epochs=10, max_batch_size=64, max_seq_length=512, max_rank=32
)


@cache
def shared_application() -> tuple[FastAPI, Delegate]:
    """The routes, and what passes calls on to the jobs."""
    app, behind = FastAPI(), Delegate()
    app.state.services = Services(cast(InferenceProtocol, None), cast(JobsProtocol, behind), Limits(), LIMITS)
    error_responses.install(app)
    for routes in (fine_tune_routes, jobs_routes, files_routes, fine_tuning_jobs_routes):
        app.include_router(routes.router)
    return app, behind


@asynccontextmanager
async def serving(jobs: FakeJobs) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the routes over these jobs, one at a time; what the routes raise fails the test."""
    app, behind = shared_application()
    assert behind.target is None, "another client is open"
    behind.target = jobs
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service") as client:
            yield client
    finally:
        behind.target = None
