"""A cluster that runs nothing: tests say what its Ray Jobs do. And a way to look at jobs after restarts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serve_app.domain.errors import UnavailableError
from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.job_folder_readers import TrainingData
from serve_app.jobs.job_policy import JobPolicy
from serve_app.jobs.job_record import JobRecord
from serve_app.jobs.job_service import JobService
from serve_app.jobs.lease import Lease
from serve_app.jobs.lease_file import LeaseHolder
from serve_app.jobs.ray_jobs import RayJobState
from tests.unit.jobs.job_examples import spec

DATA = TrainingData(b'{"query": "q", "pos": ["p"], "neg": []}\n')


class FakeCluster:
    """Implements ``jobs.submit.RayJobs``.

    Attributes:
        jobs: Its Ray Jobs.
        started: Ids of all that were ever started, in order.
        is_down: Every call fails.
        is_stubborn: Its Ray Jobs ignore that they should stop.
        is_slow: A Ray Job that is asked for appears when ``late`` is called, and nobody waits for that.
        is_hanging: Whoever asks for a Ray Job gets no answer, and the Ray Job appears when ``late`` is called.
        was_asked: Set when one was asked for that is slow or hangs.
        last_words: What a Ray Job's training writes when it is stopped.
        folders: Where the Ray Jobs write.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, RayJobState] = {}
        self.folders: dict[str, Path] = {}
        self.started: list[str] = []
        self.is_down = False
        self.is_stubborn = False
        self.is_slow = False
        self.is_hanging = False
        self._asked_for: dict[str, Path] = {}
        self.was_asked = asyncio.Event()
        self.last_words: list[dict[str, Any]] = []

    async def submit(self, submission_id: str, folder: Path) -> None:
        self._answer()
        if self.is_slow or self.is_hanging:
            self._asked_for[submission_id] = folder
            self.was_asked.set()
        if self.is_hanging:
            await asyncio.Event().wait()
        if self.is_slow:
            raise UnavailableError("the Ray Jobs API does not answer: TimeoutError()")
        if submission_id not in self.jobs:
            self._start(submission_id, folder)

    def late(self) -> None:
        """What was asked for appears."""
        for submission_id, folder in self._asked_for.items():
            self._start(submission_id, folder)

    def _start(self, submission_id: str, folder: Path) -> None:
        self.started.append(submission_id)
        self.jobs[submission_id] = RayJobState.LIVE
        self.folders[submission_id] = folder

    async def states(self) -> Mapping[str, RayJobState]:
        self._answer()
        return dict(self.jobs)

    async def stop(self, submission_id: str) -> None:
        self._answer()
        if self.jobs.get(submission_id) is RayJobState.LIVE and not self.is_stubborn:
            report(self.folders[submission_id], *self.last_words)
            self.jobs[submission_id] = RayJobState.STOPPED

    async def logs(self, submission_id: str) -> str:
        self._answer()
        return f"printed by {submission_id}\n"

    @property
    def live(self) -> list[str]:
        return [name for name, state in self.jobs.items() if state is RayJobState.LIVE]

    def kill(self, submission_id: str) -> None:
        assert self.jobs[submission_id] is RayJobState.LIVE
        self.jobs[submission_id] = RayJobState.ENDED

    def restart(self) -> None:
        """The whole cluster, head included: it remembers nothing."""
        self.jobs.clear()

    def _answer(self) -> None:
        if self.is_down:
            raise UnavailableError("the Ray Jobs API does not answer: connection refused")


def report(folder: Path, *lines: dict[str, Any] | str) -> None:
    """Appends to the job's ``training.jsonl``; a text is written as it is."""
    with (JobFolder(folder).updates_file).open("a") as file:
        for line in lines:
            file.write(line if isinstance(line, str) else json.dumps({"time": 1.0} | line) + "\n")


STARTED: dict[str, Any] = {"type": "started", "total_steps": 100, "device": "cpu"}
DONE: dict[str, Any] = {"type": "done"}


def progress(step: int, **more: Any) -> dict[str, Any]:
    return {"type": "progress", "step": step, "total_steps": 100, **more}


def checkpoint(step: int) -> dict[str, Any]:
    return {"type": "checkpoint", "step": step}


class World:
    """Job folders, a cluster, and the jobs between them; two of them on one folder are two services."""

    def __init__(self, folder: Path, name: str = "a") -> None:
        self.name = name
        self.root = folder / "jobs"
        self.models_dir = folder / "models"
        self.models_dir.mkdir(exist_ok=True)
        self.cluster = FakeCluster()
        self.now = 1000.0
        self.wall_clock_is_ahead_s = 0.0
        self.available: dict[str, float] = {}
        self.questions = 0  # after what is available
        self.policy = JobPolicy(max_concurrent_jobs=1, stop_s=0.05, poll_s=0.001)
        self.restart_tracker()

    def restart_tracker(self) -> None:
        """What a killed actor's successor does: new jobs on the same folders."""
        holder = LeaseHolder(f"cluster-{self.name}", f"service {self.name.upper()}")
        self.lease = Lease(self.root, holder, clock=lambda: self.now, has_ended=lambda _: False)
        self.jobs = JobService(
            self.root,
            self.cluster,
            self.policy,
            self.lease,
            resources=self._resources,
            clock=lambda: self.now + self.wall_clock_is_ahead_s,
            uptime=lambda: self.now,
        )

    def _resources(self) -> Mapping[str, float]:
        self.questions += 1
        return self.available

    async def submit(
        self,
        job_id: str = "a",
        model_name: str | None = None,
        *,
        data: TrainingData = DATA,
        has_generated_name: bool = False,
        **more: Any,
    ) -> JobRecord:
        wanted = spec(job_id, model_name or f"my-{job_id}", str(self.models_dir), **more)
        self.now += 1
        return await self.jobs.submit(wanted, data, accepted=40, ignored=2, has_generated_name=has_generated_name)

    async def running(self, job_id: str = "a", **more: Any) -> JobRecord:
        """A job whose training has started."""
        await self.submit(job_id, **more)
        await self.reconcile()
        self.report(STARTED, job_id=job_id)
        return await self.reconcile(job_id)

    async def reconcile(self, job_id: str = "a") -> JobRecord:
        """One second of a tracker's life, and the record after it."""
        self.now += 1
        await self.jobs.keep_lease()
        await self.jobs.reconcile()
        return await self.jobs.get(job_id)

    def report(self, *lines: dict[str, Any] | str, job_id: str = "a") -> None:
        report(self.root / job_id, *lines)

    def stage(self, job_id: str = "a") -> Path:
        """What a training has written of its result."""
        folder = spec(job_id, "", str(self.models_dir)).staging_dir
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
        return folder

    def publish(self, model_name: str, job_id: str) -> None:
        folder = self.models_dir / model_name
        folder.mkdir()
        (folder / "manifest.json").write_text(json.dumps({"name": model_name, "job_id": job_id}))
