"""DELETE /models keeps a model that a job needs, whichever service trains it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import cast

import httpx
import pytest
from fastapi import FastAPI

from serve_app.api.application import create_app
from serve_app.api.inference_protocol import InferenceProtocol
from serve_app.api.jobs_protocol import JobsProtocol
from serve_app.domain.errors import JobsReadOnlyError
from serve_app.domain.request_limits import FineTuneLimits, Limits
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.training_spec import TrainingKind
from tests.unit.api.delegate import Delegate
from tests.unit.api.fake_inference import FakeInference
from tests.unit.api.fake_jobs import FakeJobs

DONE = JobRecord("old", "result", "laws", TrainingKind.FULL, 1000.0, status=JobStatus.COMPLETED)


@cache
def shared_application() -> tuple[FastAPI, Delegate, Delegate]:
    """The application, and what passes calls on to inference and jobs."""
    inference, jobs = Delegate(), Delegate()
    return (
        create_app(cast(InferenceProtocol, inference), cast(JobsProtocol, jobs), Limits(), FineTuneLimits()),
        inference,
        jobs,
    )


def application(inference: FakeInference, jobs: FakeJobs) -> FastAPI:
    """The application, over these two until it is asked for again."""
    app, *behind = shared_application()
    behind[0].target, behind[1].target = inference, jobs
    return app


async def deleted(inference: FakeInference, jobs: FakeJobs, name: str) -> httpx.Response:
    app = application(inference, jobs)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service") as client:
        return await client.delete(f"/models/{name}")


@pytest.mark.parametrize("status", JobStatus)
async def test_a_model_is_kept_while_a_job_that_has_not_ended_needs_it(
    inference: FakeInference, status: JobStatus
) -> None:
    jobs = FakeJobs()
    jobs.records = {f"{i}": replace(DONE, id=f"{i}") for i in range(3)} | {"a": replace(DONE, id="a", status=status)}
    reply = await deleted(inference, jobs, "laws")
    assert reply.status_code == (204 if status.is_terminal else 409)
    assert inference.deleted == (["laws"] if status.is_terminal else [])


async def test_a_service_that_only_reads_jobs_names_their_manager(inference: FakeInference) -> None:
    jobs = FakeJobs()
    jobs.error = JobsReadOnlyError("the fine-tuning jobs of this folder are managed by service A", retry_after_s=30.0)
    app = application(inference, jobs)
    pairs = "".join(f"q{i}\tp{i}\n" for i in range(4))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service") as client:
        reply = await client.post("/fine-tune", json={"text_content": pairs, "model_name": "mine"})
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "30")
    assert reply.json() == {"detail": jobs.error.message, "code": "jobs_read_only"}


async def test_a_fine_tune_is_deleted_and_kept_by_the_names_that_find_it(inference: FakeInference) -> None:
    jobs = FakeJobs()
    jobs.records = {"a": replace(DONE, id="a", status=JobStatus.RUNNING)}
    app = application(inference, jobs)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service") as client:
        for prefix in ("", "openai/", "litellm_proxy/openai/"):
            assert (await client.delete(f"/v1/models/{prefix}laws")).status_code == 409
            assert (await client.delete(f"/models/{prefix}laws")).status_code == 409
            assert (await client.delete(f"/models/{prefix}mine")).status_code == 204
            assert (await client.delete(f"/v1/models/{prefix}mine")).json()["id"] == "mine"
        assert inference.deleted == ["mine"] * 6
        long = await client.delete("/v1/models/" + "openai/" * 200 + "mine")
        assert (long.status_code, len(long.json()["detail"]) < 300) == (404, True)
    assert inference.deleted == ["mine"] * 6
