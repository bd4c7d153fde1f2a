"""The fine-tuning and job routes alone, over fake jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import cast

import httpx
from fastapi import FastAPI

from serve_app.api import error_responses
from serve_app.api.dialects.native.fine_tune_routes import fine_tuning_router
from serve_app.api.dialects.native.jobs_routes import jobs_router
from serve_app.api.dialects.openai.files_routes import openai_files_router
from serve_app.api.dialects.openai.fine_tuning_jobs_routes import openai_fine_tuning_router
from serve_app.api.jobs_service import JobsProtocol
from serve_app.domain.request_limits import FineTuneLimits
from tests.unit.api.delegate import Delegate
from tests.unit.api.fake_jobs import FakeJobs

LIMITS = FineTuneLimits(
    max_examples=6, max_text_chars=50, max_listed=2, max_epochs=10, max_batch_size=64, max_seq_length=512, max_rank=32
)


@cache
def shared_application() -> tuple[FastAPI, Delegate]:
    """The routes, and what passes calls on to the jobs."""
    app, behind = FastAPI(), Delegate()
    jobs = cast(JobsProtocol, behind)
    error_responses.install(app)
    app.include_router(fine_tuning_router(jobs, LIMITS))
    app.include_router(jobs_router(jobs))
    app.include_router(openai_files_router(jobs))
    app.include_router(openai_fine_tuning_router(jobs, LIMITS))
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
