"""DELETE /models: what a job still needs is kept, whatever happens to the list of jobs meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import httpx
import pytest

from serve_app.api.application import create_app
from serve_app.domain.fine_tuning import TrainingKind
from serve_app.domain.jobs import JobRecord, JobStatus
from serve_app.domain.limits import FineTuneLimits, Limits
from tests.unit.api.fake_gateway import FakeGateway
from tests.unit.api.fake_jobs import FakeJobs

DONE = JobRecord("old", "result", "laws", TrainingKind.FULL, 1000.0, status=JobStatus.COMPLETED)
LIVE = replace(DONE, id="live", status=JobStatus.RUNNING)


class FleetingJobs(FakeJobs):
    """Somebody deletes the last job of the first page as soon as it was told."""

    async def page(self, *, limit: int, after: str | None) -> Sequence[JobRecord]:
        page = await super().page(limit=limit, after=after)
        if after is None and len(page) == limit:
            del self.records[page[-1].id]
        return page


async def deleted(gateway: FakeGateway, jobs: FakeJobs, name: str) -> httpx.Response:
    app = create_app(gateway, jobs, Limits(), FineTuneLimits())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service") as client:
        return await client.delete(f"/models/{name}")


@pytest.mark.parametrize("first", [LIVE, DONE])
async def test_a_job_that_is_deleted_under_the_search_does_not_hide_one_that_needs_the_model(
    gateway: FakeGateway, first: JobRecord
) -> None:
    jobs = FleetingJobs()
    jobs.records = {"first": replace(first, id="first")} | {f"{i}": replace(DONE, id=f"{i}") for i in range(100)}
    reply = await deleted(gateway, jobs, "laws")
    assert reply.status_code == (409 if first is LIVE else 204)
    assert gateway.deleted == ([] if first is LIVE else ["laws"])
