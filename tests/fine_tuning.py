"""Fine-tunes over HTTP: how tests start them, wait for them and talk to the service meanwhile."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from tests.tiny_models import build_e5_tiny
from tests.unit.training.training_jobs import docstring_pairs

Job = dict[str, Any]

TINY_BASE = "e5-tiny"
ENDED = ("completed", "failed", "cancelled")
_PAUSE_S = 0.2
_REMEMBERED_S = 1.2  # longer than an ingress replica remembers a fine-tune


def tiny_service(folder: Path, **training: Any) -> dict[str, Any]:
    """Arguments of a service that serves ``TINY_BASE`` and makes a checkpoint every step; its jobs are in ``jobs``."""
    build_e5_tiny(folder / "models" / TINY_BASE)
    return {
        "models_dir": str(folder / "models"),
        "models": [{"name": TINY_BASE, "num_cpus": 0.1, "threads": 1, "dtype": "float32"}],
        "training": {"jobs_dir": str(folder / "jobs"), "checkpoint_steps": 1, **training},
    }


def pair_lines(count: int) -> str:
    """``text_content`` with so many different pairs."""
    return "".join(f"{pair.query}\t{pair.positives[0]}\n" for pair in docstring_pairs(count))


def submit(client: httpx.Client, path: str = "/fine-tune", **body: Any) -> str:
    """The id of a new job.

    Raises:
        AssertionError: It was not accepted.
    """
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["job_id"])


def status(client: httpx.Client, job_id: str) -> Job:
    """The job as it is now."""
    reply = client.get(f"/train-status/{job_id}")
    assert reply.status_code == 200, reply.text
    job: Job = reply.json()
    return job


def wait_for(
    client: httpx.Client, job_id: str, is_there: Callable[[Job], bool], *, seen: list[Job] | None = None,
    timeout_s: float = 150,
) -> Job:  # fmt: skip
    """The job once it is as wanted; every state on the way is added to ``seen``.

    Raises:
        AssertionError: It ended another way, or the time is over.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        job = status(client, job_id)
        if seen is not None:
            seen.append(job)
        if is_there(job):
            return job
        assert job["status"] not in ENDED, job
        assert time.monotonic() < deadline, job
        time.sleep(_PAUSE_S)


def completed(job: Job) -> bool:
    """For ``wait_for``."""
    return bool(job["status"] == "completed")


def reached(step: int) -> Callable[[Job], bool]:
    """For ``wait_for``: training goes on, and this step is behind it."""
    return lambda job: job["status"] == "running" and job["steps"] >= step


def live_events(client: httpx.Client, job_id: str) -> Iterator[tuple[str, Any]]:
    """What the event stream of a job says until it ends: ``event`` or ``job``, and the data."""
    headers = {"Accept": "text/event-stream"}
    with client.stream("GET", f"/jobs/{job_id}/events", headers=headers, timeout=150) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        kind = ""
        for line in stream.iter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield kind, json.loads(line.removeprefix("data: "))


@dataclass
class Answers:
    """What a client got that asked all the time."""

    good: int = 0
    failures: list[str] = field(default_factory=list)


@contextmanager
def asking(url: str, *, pause_s: float = 0.03) -> Iterator[Answers]:
    """One client that asks ``/vectorize`` until the block ends; no retries."""
    answers = Answers()
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not over.wait(pause_s):
                try:
                    reply = client.post("/vectorize", json={"text": f"question {answers.good}"})
                except httpx.HTTPError as error:
                    answers.failures.append(repr(error))
                    continue
                if reply.status_code == 200 and reply.json()["vector"]:
                    answers.good += 1
                else:
                    answers.failures.append(f"{reply.status_code} {reply.text}")

    client = threading.Thread(target=ask)
    client.start()
    try:
        yield answers
    finally:
        over.set()
        client.join()


def forget(client: httpx.Client, name: str, job_id: str) -> None:
    """Leaves nothing of an ended job to other tests."""
    assert client.delete(f"/models/{name}").status_code in (204, 404)
    assert client.delete(f"/jobs/{job_id}").status_code == 200


def wait_until_gone(client: httpx.Client, name: str, timeout_s: float = 30) -> None:
    """Returns when no replica of the ingress serves a deleted model: each remembers a model for a second.

    Raises:
        AssertionError: The time is over.
    """
    deadline = time.monotonic() + timeout_s
    found_at = time.monotonic()
    while (now := time.monotonic()) - found_at < _REMEMBERED_S:
        if (code := client.post("/vectorize", json={"text": "?", "model": name}).status_code) != 404:
            found_at = now
        assert now < deadline, code
        time.sleep(_PAUSE_S)


def cosine(a: Any, b: Any) -> float:
    """The least cosine of two vectors, or of two lists of them, row by row."""
    x, y = np.atleast_2d(np.asarray(a, np.float64)), np.atleast_2d(np.asarray(b, np.float64))
    return float(((x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)).min())
