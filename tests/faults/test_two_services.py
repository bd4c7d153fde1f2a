"""Two services, each with a cluster of its own, on one jobs folder: a job is trained by one of them at a time.

One story: the first service trains, the second reads. Then the first one's tracker is suspended until the second has
taken over, and wakes up again.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from serve_app.jobs.lease_file import LeaseState, current_lease
from tests.fine_tuning import Job, completed, pair_lines, reached, status, submit, tiny_service, wait_for
from tests.service_process import Service, processes, running
from tests.training_lines import read_lines

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]  # the story is part of the first test

NAME = "tuned"
ORDER = {"text_content": pair_lines(20), "batch_size": 8, "epochs": 75, "learning_rate": 1e-4}  # of two steps each


@dataclass
class Story:
    """What happened.

    Attributes:
        refusals: What the second service answered to changes while the first one held the lease.
        read: The job as the second service told it then.
        trained_at: Step that the first service had reached when its tracker was suspended.
        seen: All states of the job after that, as the second service told them.
        refused_in_the_end: What the first service answered after it woke up.
        told_in_the_end: The job as it told it then.
        vector: Status of a request to the first service for the result.
        lines: What both trainings said.
        log: Of both drivers.
        lease: When both services have been stopped by SIGTERM, the second one first.
    """

    refusals: list[httpx.Response] = field(default_factory=list)
    read: Job = field(default_factory=dict)
    trained_at: int = 0
    seen: list[Job] = field(default_factory=list)
    refused_in_the_end: httpx.Response | None = None
    told_in_the_end: Job = field(default_factory=dict)
    vector: int = 0
    lines: list[dict[str, Any]] = field(default_factory=list)
    log: str = ""
    lease: LeaseState | None = None


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder, other_folder = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    args = tiny_service(folder)
    story = Story()
    with (
        running(folder, args) as first,
        running(other_folder, args) as second,
        httpx.Client(base_url=first.url, timeout=60) as one,
        httpx.Client(base_url=second.url, timeout=60) as two,
    ):
        job_id = submit(one, model_name=NAME, **ORDER)
        wait_for(one, job_id, reached(2))
        story.refusals = [
            two.post("/fine-tune", json=ORDER | {"model_name": "other"}),
            two.post(f"/jobs/{job_id}/cancel"),
            two.delete(f"/jobs/{job_id}"),
        ]
        story.read = wait_for(two, job_id, reached(2))  # it reads the jobs folder from time to time
        tracker = tracker_of(first)
        story.trained_at = status(one, job_id)["steps"]
        os.kill(tracker, signal.SIGSTOP)
        wait_for(two, job_id, lambda job: job["attempts"] == 2, seen=story.seen)
        wait_for(two, job_id, lambda job: job["status"] == "running", seen=story.seen)
        os.kill(tracker, signal.SIGCONT)
        wait_for(two, job_id, completed, seen=story.seen, timeout_s=240)
        story.refused_in_the_end = one.post("/fine-tune", json=ORDER | {"model_name": "other"})
        story.told_in_the_end = wait_for(one, job_id, completed)
        story.vector = one.post("/vectorize", json={"text": "?", "model": NAME}).status_code
    job_dir = folder / "jobs" / job_id
    story.lines = read_lines(job_dir)
    story.lease = current_lease(folder / "jobs")
    story.log = (job_dir / "logs" / "driver.log").read_text()
    return story


def tracker_of(service: Service) -> int:
    (pid,) = (pid for pid, name in processes(service.environment) if name.startswith("ray::JobTracker"))
    return pid


def test_a_service_that_does_not_hold_the_lease_reads_jobs_and_says_who_manages_them(story: Story) -> None:
    assert [reply.status_code for reply in story.refusals] == [503, 503, 503]
    for reply in story.refusals:
        assert "are managed by the service on " in reply.json()["detail"]
        assert reply.headers["retry-after"] == "30"
    assert story.read["steps"] >= 2


def test_the_job_goes_on_with_the_other_service_when_the_first_one_is_silent(story: Story) -> None:
    last = story.seen[-1]
    assert (last["status"], last["attempts"], last["error"]) == ("completed", 2, None)
    resumed = [line["resumed_step"] for line in story.lines if line["type"] == "started"]
    assert resumed[0] == 0
    assert resumed[1] >= story.trained_at
    assert story.vector == 200


def test_the_training_that_lost_its_job_ended_itself_and_no_step_was_trained_twice(story: Story) -> None:
    assert "this training no longer owns its job and ends: its jobs folder is managed by the service on " in story.log
    checkpoints = [line["step"] for line in story.lines if line["type"] == "checkpoint"]
    assert checkpoints == sorted(set(checkpoints))
    assert checkpoints[-1] == story.seen[-1]["total_steps"]
    ends = [line["type"] for line in story.lines if line["type"] in ("published", "done", "failed")]
    assert ends == ["published", "done"]


def test_the_first_service_wakes_up_as_one_that_reads(story: Story) -> None:
    assert story.refused_in_the_end is not None
    assert story.refused_in_the_end.status_code == 503
    assert (story.told_in_the_end["status"], story.told_in_the_end["attempts"]) == ("completed", 2)


def test_a_service_that_is_stopped_releases_the_lease(story: Story) -> None:
    assert story.lease is not None
    assert (story.lease.number, story.lease.is_released) == (3, True)
