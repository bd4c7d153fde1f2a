"""/v1/fine_tuning/jobs: requests in OpenAI's form become fine-tunes, and jobs are listed in it."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.api.dialects.openai.job_reply_schemas import (
    FineTuningCheckpoints,
    FineTuningEvents,
    FineTuningJobs,
    NewFineTuningJob,
)
from serve_app.api.jobs_protocol import ParsedFineTune
from serve_app.domain.errors import CapabilityError, ConflictError, ModelNotFoundError, QueueFullError, ServiceError
from serve_app.jobs.job_events import JobEvent
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.training_pairs import Example
from serve_app.jobs.training_spec import ClientMetadata, LoraSettings, TrainingKind
from tests.unit.api.fake_jobs import FakeJobs
from tests.unit.api.jobs_client import serving

JOBS = "/v1/fine_tuning/jobs"
LINES = b"q1\tp1\nq2\tp2\n"
PAIRS = [Example("q1", ("p1",)), Example("q2", ("p2",))]
NOBODYS = "file-00000000-0000-0000-0000-000000000000"
NATIVE = JobRecord("n", "mine", "e5", TrainingKind.FULL, 1000.7, accepted=9, ignored=1)
RUNNING = replace(
    NATIVE, status=JobStatus.RUNNING, steps=7, loss=0.5, seconds_left=60.0, last_heartbeat_at=1100.0, checkpoint=5,
    checkpoint_at=1090.0,
)  # fmt: skip
DONE = replace(
    RUNNING, status=JobStatus.COMPLETED, steps=9, ended_at=1200.0, metrics_after={"ndcg@10": 0.75}, seconds_left=None
)


@pytest.fixture
def jobs(tmp_path: Path) -> FakeJobs:
    return FakeJobs(tmp_path / "jobs")


@pytest.fixture
async def client(jobs: FakeJobs) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(jobs) as client:
        yield client


@pytest.fixture
def training_file(jobs: FakeJobs) -> str:
    return stored(jobs, LINES)


def stored(jobs: FakeJobs, data: bytes) -> str:
    return jobs.uploads.create(io.BytesIO(data), "pairs").id


def method(type: str, **hyperparameters: Any) -> dict[str, Any]:
    return {"method": {"type": type, type: {"hyperparameters": hyperparameters}}}


async def test_the_smallest_request_is_a_fine_tune_with_our_defaults(
    client: httpx.AsyncClient, jobs: FakeJobs, training_file: str
) -> None:
    reply = await client.post(JOBS, json={"model": "me/My e5", "training_file": training_file})
    received = reply.json()
    assert reply.status_code == 200, reply.text
    (order,) = jobs.requests
    name = order.model_name
    assert name.startswith("My-e5-ft-")
    assert len(name) == len("My-e5-ft-") + 8
    assert order == ParsedFineTune(
        name,
        TrainingKind.FULL,
        PAIRS,
        base_model="me/My e5",
        origin=ClientMetadata(training_file),
        has_generated_name=True,
    )
    assert NewFineTuningJob.model_validate(received).model_dump(exclude_unset=True) == received
    assert received == {
        "id": "job-1", "object": "fine_tuning.job", "created_at": 1000, "finished_at": None, "estimated_finish": None,
        "status": "queued", "model": "me/My e5", "fine_tuned_model": None, "organization_id": "retrieval-model-server",
        "training_file": training_file, "validation_file": None, "result_files": [], "trained_tokens": None,
        "seed": 42, "hyperparameters": {"n_epochs": 1, "batch_size": 32, "learning_rate_multiplier": 1.0},
        "method": {
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 32, "learning_rate_multiplier": 1.0}},
        },
        "metadata": None, "error": None, "accepted": 2, "ignored": 0, "ignored_lines": [],
    }  # fmt: skip


@pytest.mark.parametrize("in_method", [False, True])
async def test_every_field_reaches_the_parsed_request(
    client: httpx.AsyncClient, jobs: FakeJobs, training_file: str, in_method: bool
) -> None:
    held_out = stored(jobs, b'{"query": "q3", "pos": ["p3"]}\n{"query": "q4"}\n')
    numbers = {"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 2}
    body = {
        "model": "e5", "training_file": training_file, "validation_file": held_out, "suffix": "mine", "seed": 0,
        "metadata": {"team": "search"}, "integrations": None,
        **(method("supervised", **numbers) if in_method else {"hyperparameters": numbers}),
    }  # fmt: skip
    received = (await client.post(JOBS, json=body)).json()
    assert jobs.requests == [
        ParsedFineTune(
            "mine", TrainingKind.FULL, PAIRS, 1, [Example("q3", ("p3",))], "e5", epochs=3, batch_size=8,
            learning_rate=1e-4, seed=0, origin=ClientMetadata(training_file, held_out, {"team": "search"}),
        )
    ]  # fmt: skip
    assert received["hyperparameters"] == numbers
    assert (received["validation_file"], received["metadata"]) == (held_out, {"team": "search"})
    assert received["ignored_lines"] == [{"line": 2, "reason": "validation_file: lacks the field 'pos'"}]


@pytest.mark.parametrize(("type", "kind"), [("lora", TrainingKind.LORA), ("qlora", TrainingKind.QLORA)])
async def test_adapters_are_a_method_with_settings_of_their_own(
    client: httpx.AsyncClient, jobs: FakeJobs, training_file: str, type: str, kind: TrainingKind
) -> None:
    body = {"model": "e5", "training_file": training_file, "suffix": "mine"}
    shape = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0}
    numbers = {"n_epochs": "auto", "learning_rate_multiplier": 0.1}
    received = (await client.post(JOBS, json=body | method(type, **shape, **numbers))).json()
    assert jobs.requests[0].kind is kind
    assert jobs.requests[0].lora == LoraSettings(8, 16, 0.0)
    assert jobs.requests[0].learning_rate == pytest.approx(1e-4)
    used = {"n_epochs": 1, "batch_size": 32, "learning_rate_multiplier": 0.1}
    assert received["method"] == {"type": type, type: {"hyperparameters": used | shape}}
    await client.post(JOBS, json=body | {"method": {"type": type}, "hyperparameters": {"n_epochs": 2}})
    assert (jobs.requests[1].kind, jobs.requests[1].epochs, jobs.requests[1].lora) == (kind, 2, LoraSettings())


async def test_an_unknown_field_is_ignored_and_named(client: httpx.AsyncClient, training_file: str) -> None:
    body = {"model": "e5", "training_file": training_file, "seed": None, "sufix": "a"}
    reply = await client.post(JOBS, json=body)
    assert (reply.status_code, reply.headers.get("x-ignored-fields")) == (200, "sufix")


@pytest.mark.parametrize(
    ("more", "param", "message"),
    [
        ({"suffix": "a b"}, "suffix", ""),
        ({"suffix": ""}, "suffix", ""),
        ({"method": {"type": "dpo"}}, "method.type", "input should be 'supervised', 'lora' or 'qlora'"),
        ({"method": {"type": "lora", "qlora": {}}}, "method.qlora", "the method's type is 'lora'"),
        ({"method": {"type": "supervised", "dpo": {}}}, "method.dpo", "extra inputs"),
        (method("supervised", r=8), "method.supervised.hyperparameters.r", "extra inputs"),
        (method("lora", r=33), "method.lora.hyperparameters.r", "33, the limit is 32"),
        (method("lora") | {"hyperparameters": {}}, "hyperparameters", "send them here or in method"),
        (method("supervised", n_epochs=11), "method.supervised.hyperparameters.n_epochs", "11, the limit is 10"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", ""),
        ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs", "input should be a valid integer"),
        ({"hyperparameters": {"batch_size": 65}}, "hyperparameters.batch_size", "65, the limit is 64"),
        ({"hyperparameters": {"batch_size": 1}}, "hyperparameters.batch_size", ""),
        ({"hyperparameters": {"learning_rate_multiplier": 0}}, "hyperparameters.learning_rate_multiplier", ""),
        (
            {"hyperparameters": {"learning_rate_multiplier": 20001}},
            "hyperparameters.learning_rate_multiplier",
            "makes a learning rate of 1.00005",
        ),
        ({"hyperparameters": {"learning_rate_multiplier": 5e-324}}, "hyperparameters.learning_rate_multiplier", ""),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations", ""),
        ({"metadata": {"k": 5}}, "metadata.k", ""),
        ({"seed": -1}, "seed", ""),
    ],
)
async def test_invalid_values_are_refused_under_the_name_in_the_request(
    client: httpx.AsyncClient, jobs: FakeJobs, training_file: str, more: dict[str, Any], param: str, message: str
) -> None:
    reply = await client.post(JOBS, json={"model": "e5", "training_file": training_file} | more)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert error["message"].startswith(f"{param}: {message}")
    assert jobs.requests == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not one usable pair of query and passage"),
        (b'{"messages": []}', "not one usable pair of query and passage (number 1: has a field 'messages'"),
        (b"q\tp", "one usable pair; at least two"),
        (b"q\tp\nq\tr", "all pairs have the same query"),
        (b"a\tb\n" * 7, "7 examples, the limit is 6"),
        (b"a\tb\nc\t\xff", "not UTF-8 text in line 2 (byte 6 of the file); save it as UTF-8"),
    ],
)
async def test_a_file_without_anything_to_learn_from_is_named(
    client: httpx.AsyncClient, jobs: FakeJobs, data: bytes, message: str
) -> None:
    reply = await client.post(JOBS, json={"model": "e5", "training_file": stored(jobs, data)})
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, "training_file")
    assert error["message"].startswith(f"training_file: {message}")
    assert jobs.requests == []


async def test_a_byte_order_mark_is_not_part_of_the_first_query(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    await client.post(JOBS, json={"model": "e5", "training_file": stored(jobs, b"\xef\xbb\xbf" + LINES)})
    assert jobs.requests[0].examples == PAIRS


@pytest.mark.parametrize("field", ["training_file", "validation_file"])
@pytest.mark.parametrize("file_id", [NOBODYS, "../x", "\u0000"])
async def test_a_file_that_is_not_there_is_a_404_that_names_the_field(
    client: httpx.AsyncClient, jobs: FakeJobs, training_file: str, field: str, file_id: str
) -> None:
    body = {"model": "e5", "training_file": training_file} | {field: file_id}
    reply = await client.post(JOBS, json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "file_not_found")
    assert reply.json()["error"]["message"].startswith(f"{field}: no file")
    assert jobs.requests == []


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ConflictError("model_name: taken"), 409, "suffix: taken"),
        (ModelNotFoundError("base_model: none"), 404, "model: none"),
        (CapabilityError("use_qlora: not here"), 400, "method.type: not here"),
        (QueueFullError("too many: wait", retry_after_s=60.0), 429, "too many: wait"),
    ],
)
async def test_an_error_of_the_jobs_service_names_openais_field(
    client: httpx.AsyncClient, jobs: FakeJobs, training_file: str, error: ServiceError, status: int, message: str
) -> None:
    jobs.error = error
    reply = await client.post(JOBS, json={"model": "e5", "training_file": training_file})
    assert (reply.status_code, reply.json()["error"]["message"]) == (status, message)
    assert reply.headers.get("retry-after") == ("60" if status == 429 else None)


async def test_jobs_of_every_route_are_listed_newest_first(
    client: httpx.AsyncClient, jobs: FakeJobs, training_file: str
) -> None:
    jobs.records["n"] = NATIVE
    await client.post(JOBS, json={"model": "e5", "training_file": training_file, "suffix": "mine"})
    page = (await client.get(JOBS)).json()
    FineTuningJobs.model_validate(page)
    assert [(job["id"], job["training_file"]) for job in page["data"]] == [("job-1", training_file), ("n", None)]
    native = page["data"][1]
    assert (native["created_at"], native["seed"], native["accepted"], native["ignored"]) == (1000, None, 9, 1)
    first = (await client.get(f"{JOBS}?limit=1")).json()
    assert (len(first["data"]), first["has_more"]) == (1, True)
    rest = (await client.get(f"{JOBS}?limit=1&after=job-1")).json()
    assert (rest["data"], rest["has_more"]) == ([native], False)
    assert (await client.get(f"{JOBS}/n")).json() == native


async def test_a_filter_that_would_be_ignored_is_refused(client: httpx.AsyncClient) -> None:
    reply = await client.get(JOBS, params={"metadata[team]": "search"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "metadata")


@pytest.mark.parametrize(
    ("record", "received"),
    [
        (NATIVE, ("queued", None, None, None)),
        (RUNNING, ("running", None, None, 1160)),
        (DONE, ("succeeded", "mine", 1200, None)),
        (replace(DONE, status=JobStatus.CANCELLED), ("cancelled", None, 1200, None)),
        (replace(DONE, status=JobStatus.FAILED, error="no"), ("failed", None, 1200, None)),
    ],
)
async def test_every_state_has_openais_status_and_known_values(
    client: httpx.AsyncClient, jobs: FakeJobs, record: JobRecord, received: tuple[Any, ...]
) -> None:
    jobs.records["n"] = record
    job = (await client.get(f"{JOBS}/n")).json()
    assert (job["status"], job["fine_tuned_model"], job["finished_at"], job["estimated_finish"]) == received
    assert job["error"] == (record.error and {"code": "job_failed", "message": "no", "param": None})


async def test_a_cancelled_job_has_its_status(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    jobs.records["n"] = RUNNING
    assert (await client.post(f"{JOBS}/n/cancel")).json()["status"] == "cancelled"


async def test_events_are_listed_newest_first_in_pages(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    jobs.records["n"] = RUNNING
    levels = ("info", "warning", "error")
    jobs.diary = [JobEvent(i, 1000.5 + i, level, f"note {i}") for i, level in enumerate(levels, start=1)]
    page = (await client.get(f"{JOBS}/n/events?limit=2")).json()
    assert FineTuningEvents.model_validate(page).model_dump() == page
    assert [(event["level"], event["message"]) for event in page["data"]] == [("error", "note 3"), ("warn", "note 2")]
    assert (page["data"][0]["created_at"], page["has_more"]) == (1003, True)
    rest = (await client.get(f"{JOBS}/n/events", params={"limit": 2, "after": page["data"][-1]["id"]})).json()
    assert ([event["message"] for event in rest["data"]], rest["has_more"]) == (["note 1"], False)


@pytest.mark.parametrize(
    ("record", "step", "model", "made_at", "metrics"),
    [
        (RUNNING, 5, None, 1090, {"step": 5}),
        (replace(RUNNING, status=JobStatus.CANCELLED), 5, None, 1090, {"step": 5}),
        (DONE, 9, "mine", 1200, {"step": 9, "train_loss": 0.5, "ndcg@10": 0.75}),
        (replace(DONE, loss=None, metrics_after=None), 9, "mine", 1200, {"step": 9}),
        (
            replace(DONE, loss=None, metrics_after={"ndcg@10": 0.5, "sparse_ndcg@10": 0.25}),
            9,
            "mine",
            1200,
            {"step": 9, "ndcg@10": 0.5, "sparse_ndcg@10": 0.25},
        ),
    ],
)
async def test_a_checkpoint_is_listed_only_if_it_exists(
    client: httpx.AsyncClient, jobs: FakeJobs, record: JobRecord, step: int, model: str | None, made_at: int,
    metrics: dict[str, float],
) -> None:  # fmt: skip
    jobs.records["n"] = record
    page = (await client.get(f"{JOBS}/n/checkpoints")).json()
    assert FineTuningCheckpoints.model_validate(page).model_dump() == page
    (found,) = page["data"]
    assert (found["step_number"], found["fine_tuned_model_checkpoint"], found["created_at"]) == (step, model, made_at)
    assert found["metrics"] == metrics
    behind = (await client.get(f"{JOBS}/n/checkpoints", params={"after": found["id"]})).json()
    assert (behind["data"], behind["first_id"]) == ([], None)


async def test_a_job_without_a_checkpoint_has_none(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    jobs.records["n"] = NATIVE
    assert (await client.get(f"{JOBS}/n/checkpoints")).json()["data"] == []


@pytest.mark.parametrize("path", ["/x", "/x/events", "/x/checkpoints", "?after=x", "/%00"])
async def test_an_unknown_job_is_a_404_with_an_openai_error_body(client: httpx.AsyncClient, path: str) -> None:
    reply = await client.get(JOBS + path)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "job_not_found")


@pytest.mark.parametrize("query", ["?limit=0", "?limit=101", "/n/events?after=3", "/n/events?after=ftevent-x"])
async def test_parameters_out_of_their_bounds_are_refused(
    client: httpx.AsyncClient, jobs: FakeJobs, query: str
) -> None:
    jobs.records["n"] = NATIVE
    assert (await client.get(JOBS + query)).status_code == 400
