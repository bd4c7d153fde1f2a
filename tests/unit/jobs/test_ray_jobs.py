"""Our Ray Jobs among those of others, through a client that remembers what it was asked."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.domain.errors import UnavailableError
from serve_app.jobs.ray_jobs import RayJobsClient, RayJobState


class FakeClient:
    """Speaks as ``ray.job_submission.JobSubmissionClient``."""

    def __init__(self) -> None:
        self.jobs: dict[str | None, Any] = {}
        self.stopped: list[str] = []
        self.connections = 0
        self.error: Exception | None = None

    def connect(self) -> Any:
        self.connections += 1
        return self

    def submit_job(self, *, submission_id: str, **asked: Any) -> str:
        self._answer()
        assert submission_id not in self.jobs
        self.jobs[submission_id] = SimpleNamespace(submission_id=submission_id, status="RUNNING", **asked)
        return submission_id

    def list_jobs(self) -> list[Any]:
        self._answer()
        return list(self.jobs.values())

    def stop_job(self, submission_id: str) -> bool:
        self._answer()
        self.stopped.append(submission_id)
        return True

    def get_job_logs(self, submission_id: str) -> str:
        self._answer()
        return f"printed by {submission_id}"

    def _answer(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def ray_jobs(client: FakeClient) -> RayJobsClient:
    return RayJobsClient(command=("python", "-m", "training"), env={"COLOUR": "red"}, connect=client.connect)


async def test_a_job_is_started_with_its_folder_and_reserves_nothing_for_its_driver(
    ray_jobs: RayJobsClient, client: FakeClient
) -> None:
    await ray_jobs.submit("a-1", Path("/jobs of mine/a"))
    job = client.jobs["a-1"]
    assert job.entrypoint == "python -m training '/jobs of mine/a'"
    assert job.entrypoint_num_cpus == 0
    assert job.runtime_env["env_vars"]["COLOUR"] == "red"
    assert float(job.runtime_env["env_vars"]["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"]) > 24 * 3600


async def test_the_same_submission_twice_is_one(ray_jobs: RayJobsClient, client: FakeClient) -> None:
    await ray_jobs.submit("a-1", Path("/jobs/a"))
    await ray_jobs.submit("a-1", Path("/jobs/a"))  # the fake refuses a second one, as Ray does
    assert list(client.jobs) == ["a-1"]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("PENDING", RayJobState.LIVE),
        ("RUNNING", RayJobState.LIVE),
        ("STOPPED", RayJobState.STOPPED),
        ("SUCCEEDED", RayJobState.ENDED),
        ("FAILED", RayJobState.ENDED),
    ],
)
async def test_the_states_are_those_of_our_ray_jobs_alone(
    ray_jobs: RayJobsClient, client: FakeClient, status: str, state: RayJobState
) -> None:
    await ray_jobs.submit("a-1", Path("/jobs/a"))
    client.jobs["a-1"].status = status
    client.jobs["other"] = SimpleNamespace(submission_id="other", status="RUNNING", metadata={})
    client.jobs["third"] = SimpleNamespace(submission_id="third", status="RUNNING", metadata=None)
    client.jobs[None] = SimpleNamespace(submission_id=None, status="RUNNING", metadata=None)  # somebody's ray.init
    assert await ray_jobs.states() == {"a-1": state}


async def test_only_what_runs_is_stopped(ray_jobs: RayJobsClient, client: FakeClient) -> None:
    await ray_jobs.submit("a-1", Path("/jobs/a"))
    await ray_jobs.stop("a-1")
    client.jobs["a-1"].status = "SUCCEEDED"
    await ray_jobs.stop("a-1")
    await ray_jobs.stop("unknown")
    assert client.stopped == ["a-1"]


async def test_a_ray_job_that_is_forgotten_has_no_log(ray_jobs: RayJobsClient) -> None:
    assert await ray_jobs.logs("a-1") == ""
    await ray_jobs.submit("a-1", Path("/jobs/a"))
    assert await ray_jobs.logs("a-1") == "printed by a-1"


@pytest.mark.parametrize("error", [RuntimeError("500"), ConnectionError("refused"), ValueError("no GCS")])
async def test_an_api_that_does_not_answer_is_told_as_such_and_asked_anew(
    ray_jobs: RayJobsClient, client: FakeClient, error: Exception
) -> None:
    client.error = error
    with pytest.raises(UnavailableError, match="the Ray Jobs API does not answer"):
        await ray_jobs.states()
    client.error = None
    assert await ray_jobs.states() == {}
    assert client.connections == 2


async def test_calls_that_hang_hold_up_neither_later_ones_nor_other_threads(
    ray_jobs: RayJobsClient, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.jobs.ray_jobs._TIMEOUT_S", 0.02)
    released = threading.Event()
    hung: list[str] = []

    def hang() -> list[Any]:
        hung.append(threading.current_thread().name)
        released.wait()
        return []

    try:
        with monkeypatch.context() as patch:
            patch.setattr(client, "list_jobs", hang)
            outcomes = await asyncio.gather(*(ray_jobs.states() for _ in range(20)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 20
        monkeypatch.setattr("serve_app.jobs.ray_jobs._TIMEOUT_S", 5.0)
        assert await ray_jobs.states() == {}
        assert all(name.startswith("ray-jobs") for name in hung)
    finally:
        released.set()
