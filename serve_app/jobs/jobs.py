"""What clients may do with fine-tuning jobs. Knows no Ray: the cluster is a ``Submitter``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from serve_app.domain.errors import ConflictError, IllegalTransitionError, QueueFullError, UnavailableError
from serve_app.domain.fine_tuning import TrainingSpec
from serve_app.domain.job_events import EventType
from serve_app.domain.job_notes import JobNote
from serve_app.domain.jobs import JobRecord, JobStatus
from serve_app.jobs.ledger import Ledger
from serve_app.jobs.store import JobStore, TrainingData
from serve_app.jobs.submit import Submitter
from serve_app.jobs.supervision import Rules, Supervision

_SENT_AGAIN_S = 60.0  # a repetition comes at once; who waits longer means another job


class Jobs:
    """All fine-tuning jobs of a service; lives on one event loop.

    A new one on the same folders goes on where the old one was, whatever has happened to that and to the cluster.
    """

    def __init__(
        self,
        store: JobStore,
        submitter: Submitter,
        rules: Rules,
        *,
        resources: Callable[[], Mapping[str, float]] = dict,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Reads all job folders; ``look`` sets them going.

        Args:
            store: The folders.
            submitter: The cluster.
            rules: How jobs are treated.
            resources: CPUs and GPUs that nobody has reserved, in Ray's words; nothing if unknown. May block.
            clock: Unix time in seconds.

        Raises:
            StorageError: The folders can not be read.
        """
        self._ledger = Ledger(store, clock)
        self._submitter = submitter
        self._rules = rules
        self._supervision = Supervision(self._ledger, submitter, rules, resources)
        self._taking = asyncio.Lock()  # one at a time: names and numbers are looked at before a folder is there

    async def look(self) -> None:
        """Brings everything up to date; to be called every second."""
        await self._supervision.look()

    async def submit(
        self, spec: TrainingSpec, data: TrainingData, *, accepted: int, ignored: int, any_name: bool = False
    ) -> JobRecord:
        """Takes a job. The same job twice is one job, so that a caller may ask again.

        Args:
            spec: What is to be done.
            data: With what.
            accepted: Examples in it.
            ignored: Lines of the client's that are not.
            any_name: The name was made up, so whoever sends the same again at once means the same job. Who chose the
                name is told that it is taken, and by which job.

        Raises:
            ConflictError: The name is taken.
            QueueFullError: Too many jobs wait.
            StorageError: Its folder can not be written.
        """
        async with self._taking:
            if spec.job_id in self._ledger:
                return self._ledger.get(spec.job_id)
            if any_name and (same := await self._sent_before(spec, data)) is not None:
                return same
            self._ledger.refuse_taken_name(spec)
            if len(self._ledger.live()) >= self._rules.max_waiting_jobs:
                most = self._rules.max_waiting_jobs
                raise QueueFullError(f"{most} fine-tunes wait or run already", retry_after_s=60.0)
            record = JobRecord.of_spec(spec, created_at=self._ledger.clock(), accepted=accepted, ignored=ignored)
            await asyncio.to_thread(self._ledger.create, spec, data, record)
            self._ledger.enter(spec, record)
            return record

    async def _sent_before(self, spec: TrainingSpec, data: TrainingData) -> JobRecord | None:
        """The job that this one is, sent again: a proxy does that if the HTTP replica dies before it answers."""
        since = self._ledger.clock() - _SENT_AGAIN_S
        for record in self._ledger.since(since):
            if record.status in (JobStatus.FAILED, JobStatus.CANCELLED):
                continue  # who sends it again then wants it done
            known = self._ledger.specs([record.id]).get(record.id)
            if known is None or known != replace(spec, job_id=known.job_id, model_name=known.model_name):
                continue
            if record.status is JobStatus.COMPLETED and not self._ledger.is_published(record.id):
                continue  # its model was deleted
            if await asyncio.to_thread(self._ledger.store.data, record.id) == data:
                return self._ledger.get(record.id)
        return None

    async def get(self, job_id: str) -> JobRecord:
        """The job as it is now.

        Raises:
            JobNotFoundError: There is none.
        """
        return self._ledger.get(job_id)

    async def specs(self, job_ids: Sequence[str]) -> Mapping[str, TrainingSpec]:
        """What jobs were asked to do, by id; without those that are gone or whose spec can not be read."""
        return self._ledger.specs(job_ids)

    async def page(self, *, limit: int, after: str | None = None) -> Sequence[JobRecord]:
        """Jobs, newest first; ``after`` is the id of the last one of the page before.

        Raises:
            JobNotFoundError: There is no job ``after``.
        """
        return self._ledger.page(limit=limit, after=after)

    async def cancel(self, job_id: str) -> JobRecord:
        """Stops a job within ten seconds; its checkpoints stay and its name is free. Cancelling twice is one.

        Raises:
            JobNotFoundError: There is none.
            IllegalTransitionError: It has ended another way, perhaps just now.
        """
        self._ledger.get(job_id)
        self._supervision.interrupt_start(job_id)
        async with self._supervision.locks[job_id]:
            record = self._ledger.get(job_id)
            if record.status is JobStatus.CANCELLED:
                return record
            if not record.status.is_terminal and record.submission_id is not None:
                await self._supervision.stop(record.submission_id)
                await self._supervision.keep_log(record)
                record = self._ledger.fold(job_id, deaf_to={EventType.FAILED})  # what fails now fails of our stop
                if not record.status.is_terminal and self._ledger.is_published(job_id):
                    record = self._ledger.complete(job_id)
            if record.status.is_terminal:
                raise IllegalTransitionError(f"the job is {record.status} and can not be cancelled any more")
            return self._ledger.apply(job_id, EventType.CANCELLED)

    async def delete(self, job_id: str) -> None:
        """Removes a job that has ended, with its data and checkpoints; its result stays.

        Raises:
            JobNotFoundError: There is none.
            ConflictError: It has not ended.
            StorageError: Its folder can not be removed.
        """
        self._ledger.get(job_id)
        async with self._supervision.locks[job_id]:
            record = self._ledger.get(job_id)
            if not record.status.is_terminal:
                raise ConflictError(f"the job is {record.status}; cancel it before you delete it")
            await asyncio.to_thread(self._ledger.store.delete, job_id)
            await asyncio.to_thread(self._ledger.remove_staged, job_id)  # written after its end, if it did not stop
            self._ledger.forget(job_id)

    async def notes(self, job_id: str, *, after: int = 0) -> Sequence[JobNote]:
        """The job's diary behind the entry ``after``.

        Raises:
            JobNotFoundError: There is none.
        """
        record = self._ledger.get(job_id)
        return [] if record.events <= after else self._ledger.store.notes(job_id, after=after)

    async def logs(self, job_id: str) -> str:
        """What its processes have printed: of earlier attempts from the job's folder, of the last one from Ray.

        Raises:
            JobNotFoundError: There is none.
        """
        record = self._ledger.get(job_id)
        logs = await asyncio.to_thread(self._ledger.store.logs, job_id)
        if record.submission_id is not None and not record.status.is_terminal:
            try:
                logs[f"ray-{record.attempts}"] = await self._submitter.logs(record.submission_id)
            except UnavailableError as error:
                logs[f"ray-{record.attempts}"] = error.message
        return "\n".join(f"==> {name} <==\n{text}" for name, text in logs.items() if text)

    async def loss_curve(self, job_id: str) -> str | None:
        """The loss curve as SVG, if there is one yet.

        Raises:
            JobNotFoundError: There is none.
        """
        self._ledger.get(job_id)
        return self._ledger.store.loss_curve(job_id)
