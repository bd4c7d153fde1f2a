"""The job routes and /train-status: the fields of a job, and a stream that ends with it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from serve_app.api.dialects.native import jobs_routes as routes
from serve_app.api.dialects.native.fine_tune_schemas import Job
from serve_app.domain.errors import JobNotFoundError, UnavailableError
from serve_app.jobs.job_events import JobEvent
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.training_spec import TrainingKind
from tests.unit.api.fake_jobs import FakeJobs
from tests.unit.api.jobs_client import serving

RECORD = JobRecord("a", "my-e5", "e5", TrainingKind.QLORA, 1000.0, accepted=9, ignored=1)
RUNNING = replace(RECORD, status=JobStatus.RUNNING, progress=12.5, steps=5, total_steps=40, loss=0.5, started_at=1001.0)
DONE = replace(RUNNING, status=JobStatus.COMPLETED, progress=100.0, metrics_after={"ndcg@10": 0.7}, ended_at=1009.0)
STREAM = {"accept": "text/event-stream"}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> FakeJobs:
    monkeypatch.setattr(routes, "_POLL_S", 0.001)
    jobs = FakeJobs()
    jobs.records["a"] = RUNNING
    jobs.diary = [JobEvent(i, 1000.0 + i, "info", f"note {i} \u2028") for i in (1, 2, 3)]
    return jobs


@pytest.fixture
async def client(jobs: FakeJobs) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(jobs) as client:
        yield client


@pytest.mark.parametrize("path", ["/train-status/a", "/jobs/a"])
async def test_a_job_has_every_field_of_the_contract(client: httpx.AsyncClient, path: str) -> None:
    reply = await client.get(path)
    received = reply.json()
    assert reply.status_code == 200
    assert Job.model_validate(received).model_dump() == received, "the documented fields and no others"
    assert (received["status"], received["progress"], received["steps"], received["epoch"]) == ("running", 12.5, 5, 0.0)
    assert (received["message"], received["error"], received["type"], received["kind"]) == (
        RUNNING.message,
        None,
        "lora",
        "qlora",
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/train-status/x"),
        ("GET", "/jobs/x"),
        ("POST", "/jobs/x/cancel"),
        ("DELETE", "/jobs/x"),
        ("GET", "/jobs/x/events"),
        ("GET", "/jobs/x/logs"),
        ("GET", "/jobs/x/loss.svg"),
        ("GET", "/jobs?after=x"),
    ],
)
@pytest.mark.parametrize("headers", [{}, STREAM])
async def test_an_unknown_job_is_not_found(
    client: httpx.AsyncClient, method: str, path: str, headers: dict[str, str]
) -> None:
    reply = await client.request(method, path, headers=headers)
    assert (reply.status_code, reply.json()) == (404, {"detail": "Job not found", "code": "job_not_found"})


async def test_jobs_are_listed_in_pages(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    jobs.records = {name: replace(RECORD, id=name) for name in "abc"}
    first = (await client.get("/jobs", params={"limit": 2})).json()
    assert ([job["job_id"] for job in first["jobs"]], first["has_more"]) == (["c", "b"], True)
    second = (await client.get("/jobs", params={"limit": 2, "after": "b"})).json()
    assert ([job["job_id"] for job in second["jobs"]], second["has_more"]) == (["a"], False)


@pytest.mark.parametrize("limit", ["0", "101", "-1", "many"])
async def test_a_page_has_1_to_100_jobs(client: httpx.AsyncClient, limit: str) -> None:
    assert (await client.get("/jobs", params={"limit": limit})).status_code == 422


async def test_a_job_is_cancelled_and_then_deleted(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    refused = await client.delete("/jobs/a")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert (await client.post("/jobs/a/cancel")).json()["status"] == "cancelled"
    assert (await client.delete("/jobs/a")).json() == {"job_id": "a", "deleted": True}
    assert jobs.records == {}


async def test_events_are_listed_after_a_cursor(client: httpx.AsyncClient) -> None:
    reply = await client.get("/jobs/a/events", params={"after": 1})
    assert [event["id"] for event in reply.json()["events"]] == [2, 3]
    assert sorted(reply.json()["events"][0]) == ["id", "level", "message", "time"]


@pytest.mark.parametrize(("path", "kind"), [("logs", "text/plain"), ("loss.svg", "image/svg+xml")])
async def test_replies_other_than_json_are_documented(client: httpx.AsyncClient, path: str, kind: str) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    answers = paths[f"/jobs/{{job_id}}/{path}"]["get"]["responses"]
    assert list(answers["200"]["content"]) == [kind]
    assert list(answers["404"]["content"]) == ["application/json"]


async def test_logs_are_text_and_the_loss_curve_a_picture(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    logs = await client.get("/jobs/a/logs")
    assert (logs.text, logs.headers["content-type"]) == ("logs of a", "text/plain; charset=utf-8")
    missing = await client.get("/jobs/a/loss.svg")
    said = {"detail": "the loss curve has not been drawn yet", "code": "not_found"}
    assert (missing.status_code, missing.json()) == (404, said)
    jobs.picture = "<svg/>"
    picture = await client.get("/jobs/a/loss.svg")
    assert (picture.text, picture.headers["content-type"]) == ("<svg/>", "image/svg+xml")


# ------------------------------------------------------------------ the stream


def events_of(text: str) -> list[tuple[str, Any]]:
    """Reads server-sent events, as the standard has it; comments are left out."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


async def test_a_stream_has_events_and_changes_until_the_job_ends(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    further = replace(RUNNING, steps=6, loss=0.4)
    jobs.script = [RUNNING, RUNNING, RUNNING, further, DONE]  # the first is asked before the stream begins
    reply = await client.get("/jobs/a/events", headers=STREAM)
    assert reply.headers["content-type"].startswith("text/event-stream")
    received = events_of(reply.text)
    assert [data["id"] for kind, data in received if kind == "event"] == [1, 2, 3]
    assert [(data["status"], data["steps"]) for kind, data in received if kind == "job"] == [
        ("running", 5),
        ("running", 6),
        ("completed", 5),
    ]


async def test_a_stream_outlives_a_tracker_that_is_restarted(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    jobs.script = [RUNNING, RUNNING, UnavailableError("restarting"), UnavailableError("restarting"), DONE]
    reply = await client.get("/jobs/a/events", headers=STREAM)
    assert [data["status"] for kind, data in events_of(reply.text) if kind == "job"] == ["running", "completed"]


async def test_a_stream_ends_when_its_job_is_deleted(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    jobs.script = [RUNNING, RUNNING, JobNotFoundError("deleted")]
    reply = await client.get("/jobs/a/events", headers=STREAM)
    assert [data["status"] for kind, data in events_of(reply.text) if kind == "job"] == ["running"]


@pytest.mark.parametrize(("header", "ids"), [("2", [3]), ("", [2, 3]), ("soon", [2, 3]), ("9" * 5000, [2, 3])])
async def test_a_broken_stream_resumes_after_the_clients_last_event(
    client: httpx.AsyncClient, jobs: FakeJobs, header: str, ids: list[int]
) -> None:
    jobs.records["a"] = DONE
    reply = await client.get("/jobs/a/events?after=1", headers=STREAM | {"last-event-id": header})
    assert [data["id"] for kind, data in events_of(reply.text) if kind == "event"] == ids
