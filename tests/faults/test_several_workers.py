"""Two training workers on a real cluster: one is killed, then the service is restarted, and the job is finished.

One story on a cluster of its own, told by a fixture. Every step makes a checkpoint, so there is time to kill.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.fine_tuning import Job, completed, pair_lines, reached, submit, tiny_service, wait_for
from tests.service_process import Service, processes, running
from tests.training_lines import read_lines

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

NAME = "tuned"
STEPS = 30
WORKER = "ray::RayTrainWorker"


@dataclass
class Story:
    """What happened.

    Attributes:
        workers: Training workers that were there before one was killed.
        last: The job in the end.
        record: What its folder holds of it.
        notes: Its diary.
        lines: What its training said.
        vector: Status of a request for its result.
    """

    workers: int = 0
    last: Job = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    vector: int = 0


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("workers")
    args = tiny_service(folder, num_workers=2, cpus_per_worker=0.2, gpus_per_worker=0)
    story = Story()
    with running(folder, args) as service, httpx.Client(base_url=service.url, timeout=60) as client:
        order = {"text_content": pair_lines(10), "batch_size": 8, "epochs": STEPS, "learning_rate": 1e-4}
        job_id = submit(client, model_name=NAME, **order)
        killed_at = wait_for(client, job_id, reached(3))["steps"]
        story.workers = kill_one_worker(service)
        wait_for(client, job_id, reached(killed_at + 4))
    with running(folder, args) as service, httpx.Client(base_url=service.url, timeout=60) as client:
        story.last = wait_for(client, job_id, completed)
        story.vector = client.post("/vectorize", json={"text": "?", "model": NAME}).status_code
        story.notes = [note["message"] for note in client.get(f"/jobs/{job_id}/events").json()["events"]]
    job_dir = folder / "jobs" / job_id
    story.record = json.loads((job_dir / "job.json").read_text())
    story.lines = read_lines(job_dir)
    return story


def kill_one_worker(service: Service, timeout_s: float = 30) -> int:
    """SIGKILL to one of two; how many there were.

    Looks until it sees both: Ray rewrites its processes' titles all the time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        found = [pid for pid, name in processes(service.environment) if name.startswith(WORKER)]
        if len(found) == 2 or time.monotonic() > deadline:
            break
    with suppress(ProcessLookupError):
        os.kill(found[0], signal.SIGKILL)
    return len(found)


def test_both_workers_train_and_the_loss_of_one_costs_no_attempt(story: Story) -> None:
    assert story.workers == 2
    started = [line for line in story.lines if line["type"] == "started"]
    assert [line["world_size"] for line in started] == [2, 2, 2]
    assert 0 == started[0]["resumed_step"] < started[1]["resumed_step"] < started[2]["resumed_step"]
    assert story.last["attempts"] == 2, "one for each cluster"


def test_no_step_is_trained_twice_and_the_result_is_served(story: Story) -> None:
    checkpoints = [line["step"] for line in story.lines if line["type"] == "checkpoint"]
    assert checkpoints == sorted(set(checkpoints))
    assert (story.last["status"], story.last["steps"], story.last["error"]) == ("completed", STEPS, None)
    assert story.last["metrics_after"] is not None
    assert story.vector == 200


def test_a_restart_of_the_service_is_known_as_one_and_held_against_nobody(story: Story) -> None:
    assert [note for note in story.notes if "training will resume from step" in note][-1].startswith(
        "the cluster was restarted; training will resume from step"
    )
    assert story.record["fruitless"] == 0
