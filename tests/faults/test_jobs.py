"""kill -9 of everything that has to do with a fine-tune, one after the other: it is finished, once, and served.

One story on a cluster of its own, told by a fixture: each part needs the one before, and a cluster takes long to start.
Every step of the training makes a checkpoint, and a checkpoint takes half a second; so there is time to kill.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fine_tuning import Job, completed, pair_lines, reached, status, submit, tiny_service, wait_for
from tests.service_process import Service, processes, running
from tests.training_lines import read_lines

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]  # the story is part of the first test

NAME = "tuned"
STEPS = 40
TRACKER, WORKER = "ray::JobTracker", "ray::RayTrainWorker"
DRIVER = f"{sys.executable} -m training "
CANCELLED_WITHIN_S = 10


@dataclass
class Story:
    """What happened.

    Attributes:
        twins: Statuses of two submissions of one name at once.
        queue: The job that waited for the first one, as it was then and after it was cancelled.
        cancelled: The first one, cancelled while it ran.
        cancel_s: Seconds that both cancellations took.
        left: Training processes a while after that.
        seen: All states of the job that survived, in order.
        victims: What was killed under it.
        lines: What its training said, in all attempts.
        vector: Status of the first request for its result.
        jobs: All jobs in the end.
        models: All fine-tunes in the end.
    """

    twins: list[int] = field(default_factory=list)
    queue: list[Job] = field(default_factory=list)
    cancelled: Job = field(default_factory=dict)
    cancel_s: list[float] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    seen: list[Job] = field(default_factory=list)
    victims: list[str] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    vector: int = 0
    jobs: list[Job] = field(default_factory=list)
    models: list[str] = field(default_factory=list)


def order(name: str) -> dict[str, Any]:
    """A job of ``STEPS`` steps."""
    return {"model_name": name, "text_content": pair_lines(9), "batch_size": 8, "epochs": STEPS, "learning_rate": 1e-4}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("jobs")
    args = tiny_service(folder)
    story = Story()
    with running(folder, args) as service, httpx.Client(base_url=service.url, timeout=60) as client:
        cancel_everywhere(service, client, story)
        job_id = submit(client, **order(NAME))
        kill_one_after_the_other(service, client, job_id, folder / "jobs" / job_id, story)
    with running(folder, args) as service, httpx.Client(base_url=service.url, timeout=60) as client:
        wait_for(client, job_id, completed, seen=story.seen)
        story.vector = client.post("/vectorize", json={"text": "?", "model": NAME}).status_code
        story.jobs = client.get("/jobs").json()["jobs"]
        story.models = [model["name"] for model in client.get("/models").json()["models"] if model["base"]]
    story.lines = read_lines(folder / "jobs" / job_id)
    return story


def cancel_everywhere(service: Service, client: httpx.Client, story: Story) -> None:
    """Two submissions of one name; a job that waits for the one that was accepted; both are cancelled."""
    start = threading.Barrier(2)

    def twin(_: int) -> httpx.Response:
        start.wait()
        return httpx.post(f"{service.url}/fine-tune", json=order(NAME), timeout=60)

    with ThreadPoolExecutor(2) as pool:
        replies = list(pool.map(twin, range(2)))
    story.twins = sorted(reply.status_code for reply in replies)
    first = next(reply.json()["job_id"] for reply in replies if reply.status_code == 200)
    second = submit(client, **order("other"))
    story.queue.append(wait_for(client, second, lambda job: job["pending_reason"] is not None))
    wait_for(client, first, reached(2))
    for job_id in (second, first):
        began = time.monotonic()
        reply = client.post(f"/jobs/{job_id}/cancel")
        story.cancel_s.append(time.monotonic() - began)
        assert reply.status_code == 200, reply.text
    story.queue.append(status(client, second))
    story.cancelled = status(client, first)
    story.left = wait_until_none(service)


def kill_one_after_the_other(service: Service, client: httpx.Client, job_id: str, folder: Path, story: Story) -> None:
    """Tracker and worker in one moment; the driver; the whole cluster. Training goes on between."""
    for parts in ([TRACKER, WORKER], [DRIVER], [""]):
        wait_for(client, job_id, reached(last_checkpoint(folder) + 2), seen=story.seen)
        for part in parts:
            story.victims += kill(service, part)


def kill(service: Service, part: str, timeout_s: float = 30) -> list[str]:
    """SIGKILL to every process of the service whose command line begins so; their command lines.

    Looks again until there is one: Ray rewrites the titles of its processes all the time.
    """
    killed: list[str] = []
    deadline = time.monotonic() + timeout_s
    while not killed and time.monotonic() < deadline:
        for pid, name in processes(service.environment):
            if name.startswith(part):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(name)
    return killed


def last_checkpoint(job_dir: Path) -> int:
    """The record may be behind: its tracker was dead."""
    return max((line["step"] for line in read_lines(job_dir) if line["type"] == "checkpoint"), default=0)


def wait_until_none(service: Service, timeout_s: float = 30) -> list[str]:
    """Training processes that are left when there are none or the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        left = [name for _, name in processes(service.environment) if name.startswith((WORKER, DRIVER))]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


def test_of_two_submissions_of_one_name_at_once_one_is_refused(story: Story) -> None:
    assert story.twins == [200, 409]


def test_a_job_waits_for_the_one_before_it_and_says_so(story: Story) -> None:
    assert story.queue[0]["status"] == "pending"
    assert story.queue[0]["pending_reason"] == "waiting for another job to end"


def test_waiting_and_running_jobs_are_cancelled_within_ten_seconds_and_leave_no_process(story: Story) -> None:
    print(f"cancelled in {story.cancel_s} s")
    assert story.queue[1]["status"] == "cancelled"
    assert (story.cancelled["status"], story.cancelled["error"]) == ("cancelled", None)
    assert max(story.cancel_s) < CANCELLED_WITHIN_S
    assert story.left == []


def test_everything_was_killed_while_it_worked(story: Story) -> None:
    for part in (TRACKER, WORKER, DRIVER):
        assert any(name.startswith(part) for name in story.victims)
    assert sum(name.startswith(TRACKER) for name in story.victims) == 2, "the second one with the cluster"
    assert any("gcs_server" in name for name in story.victims)


def test_the_job_is_finished_and_served_whatever_was_killed(story: Story) -> None:
    last = story.seen[-1]
    assert (last["status"], last["progress"], last["steps"], last["error"]) == ("completed", 100, STEPS, None)
    assert last["attempts"] == 3, "the driver and the cluster were killed once each"
    assert story.vector == 200


def test_progress_never_falls_whatever_is_killed(story: Story) -> None:
    progress = [job["progress"] for job in story.seen]
    assert progress == sorted(progress)


def test_no_step_is_trained_twice_and_there_is_one_result(story: Story) -> None:
    checkpoints = [line["step"] for line in story.lines if line["type"] == "checkpoint"]
    assert checkpoints == sorted(set(checkpoints))
    resumed = [line["resumed_step"] for line in story.lines if line["type"] == "started"]
    assert len(resumed) == 4
    assert resumed == sorted(resumed)
    assert resumed[0] == 0 < resumed[1]
    ends = [line["type"] for line in story.lines if line["type"] in ("published", "done", "failed")]
    assert ends == ["published", "done"]
    assert story.models == [NAME]


def test_no_job_is_lost_with_the_cluster(story: Story) -> None:
    assert [(job["model_name"], job["status"]) for job in story.jobs] == [
        (NAME, "completed"),
        ("other", "cancelled"),
        (NAME, "cancelled"),
    ]
