"""What clients may do with fine-tuning jobs. Knows no Ray: the cluster is a ``JobLauncherProtocol``.

Of all services on one jobs folder the holder of its lease changes jobs and has them trained; the others read them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from serve_app.domain.errors import (
    ConflictError,
    IllegalTransitionError,
    QueueFullError,
    ServiceError,
    StorageError,
    UnavailableError,
)
from serve_app.jobs.job_events import JobEvent
from serve_app.jobs.job_folders import JobFolders, TrainingData
from serve_app.jobs.job_reconciler import JobReconciler, Rules
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.job_repository import JobRepository
from serve_app.jobs.job_updates import EventType
from serve_app.jobs.lease import Lease
from serve_app.jobs.ray_jobs import JobLauncherProtocol, Submission
from serve_app.jobs.training_spec import TrainingSpec

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SENT_AGAIN_S = 60.0  # a repetition comes at once; who waits longer means another job
_RENEWAL_S = 1.0
_REFRESH_S = 1.0  # so old may be what is told of jobs that another service manages


class JobService:
    """All fine-tuning jobs of a service; lives on one event loop.

    A new one on the same folders goes on where the old one was, whatever has happened to that and to the cluster.
    """

    def __init__(
        self,
        root: Path,
        submitter: JobLauncherProtocol,
        rules: Rules,
        lease: Lease,
        *,
        resources: Callable[[], Mapping[str, float]] = dict,
        clock: Callable[[], float] = time.time,
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        """Touches nothing yet: ``keep_lease`` reads the job folders, ``look`` sets them going.

        Args:
            root: Folder of the job folders.
            submitter: The cluster.
            rules: How jobs are treated.
            lease: Of the folder.
            resources: CPUs and GPUs that nobody has reserved, in Ray's words; nothing if unknown. May block.
            clock: Unix time in seconds.
            uptime: Seconds on a clock that is never set.
        """
        self._root = root
        self._submitter = submitter
        self._rules = rules
        self._lease = lease
        self._resources = resources
        self._clock = clock
        self._uptime = uptime
        self._taking = asyncio.Lock()  # one at a time: names and numbers are looked at before a folder is there
        self._opening = asyncio.Lock()
        self._ledger: JobRepository | None = None
        self._supervision: JobReconciler | None = None  # there while this service holds the lease
        self._number: int | None = None  # of the lease under which both were made
        self._read_at = 0.0
        self._may_train = True  # Ray Jobs of this cluster may be left from when it held the lease
        self._logged_holder = ""
        self._lease_fault: StorageError | None = None  # why the last poll failed

    async def keep_lease(self) -> None:
        """Renews the lease, or takes it if its holder has stopped; to be called every second.

        A lease that cannot be written, as on a full disk, leaves the jobs readable.

        Raises:
            StorageError: The folders can not be read.
        """
        async with self._opening:
            number = await self._poll()
            if self._ledger is None or number != self._number:
                await self._open(number)

    async def _poll(self) -> int | None:
        """The number of the lease while this service holds it."""
        try:
            number = await asyncio.to_thread(self._lease.poll)
        except StorageError as fault:
            if self._lease_fault is None or fault.message != self._lease_fault.message:
                logger.error("%s", fault.message)
            self._lease_fault = fault
            return self._lease.number
        self._lease_fault = None
        return number

    async def release_lease(self) -> None:
        """Gives the lease up for good: the service ends, and another one need not wait until this one is silent."""
        await asyncio.to_thread(self._lease.release)
        await self.keep_lease()

    async def _open(self, number: int | None) -> None:
        """Reads all job folders, as the holder of the lease under ``number`` or as one of those that only read."""
        check = self._fail_to_write if number is None else partial(self._lease.require, number)
        store = JobFolders(self._root, check_writable=check, creates_root=number is not None)
        if number is not None:
            async with self._taking:  # what was being written under an earlier lease is over
                await self._while_renewing(asyncio.to_thread(store.remove_unfinished))  # a deleted job may be large
        earlier = self._ledger if number is None else None
        make = partial(JobRepository, store, self._clock, writes=number is not None, earlier=earlier)
        ledger = await self._while_renewing(asyncio.to_thread(make))  # a first start opens all folders
        self._ledger, self._number, self._read_at = ledger, number, self._uptime()
        if number is not None:
            self._supervision = JobReconciler(ledger, self._submitter, self._rules, self._resources, self._uptime)
            self._logged_holder = ""
            return
        self._may_train |= self._supervision is not None
        self._supervision = None
        if self._lease_fault is None and self._lease.holder_name != self._logged_holder:
            self._logged_holder = self._lease.holder_name
            logger.warning("the jobs in %s are read-only here: %s", self._root, self._lease.read_only_error().message)

    async def _while_renewing(self, work: Awaitable[T]) -> T:
        """The result of work that may take longer than a holder of the lease may be silent."""
        task = asyncio.ensure_future(work)
        while not (await asyncio.wait({task}, timeout=_RENEWAL_S))[0]:
            await self._poll()
        return task.result()

    def _fail_to_write(self) -> None:
        raise self._why_read_only()

    def _why_read_only(self) -> ServiceError:
        return self._lease_fault or self._lease.read_only_error()

    async def _reading(self) -> JobRepository:
        """The jobs as they are now, or were a second ago where another service manages them."""
        if self._ledger is None:
            await self.keep_lease()
        if self._number is None and self._uptime() - self._read_at >= _REFRESH_S:
            async with self._opening:
                if self._number is None and self._uptime() - self._read_at >= _REFRESH_S:
                    await self._open(None)
        assert self._ledger is not None
        return self._ledger

    async def _writing(self) -> tuple[JobRepository, JobReconciler]:
        """The jobs, to be changed.

        Raises:
            JobsReadOnlyError: Another service manages them.
        """
        await self._reading()
        return self._managed()

    def _managed(self) -> tuple[JobRepository, JobReconciler]:
        if self._ledger is None or self._supervision is None:
            raise self._why_read_only()
        return self._ledger, self._supervision

    async def look(self) -> None:
        """Brings everything up to date; to be called every second."""
        await self._reading()
        if self._supervision is not None:
            await self._supervision.look()
            ledger, _ = self._managed()
            await self._remove_unneeded(ledger)
            if old := ledger.take_old():
                await asyncio.to_thread(ledger.store.remove_leftovers, old)
                ledger.mark_clean(old)
        elif self._may_train and self._lease_fault is None:  # else nobody else has taken them
            await self._stop_trainings()

    async def _remove_unneeded(self, ledger: JobRepository) -> None:
        """Removes what ended jobs leave, off the event loop, on which the lease is renewed meanwhile."""
        if folders := ledger.take_unneeded():
            try:
                await asyncio.to_thread(ledger.store.remove_folders, folders)
            except ServiceError as error:  # the holder of the lease removes them a day after the jobs have ended
                logger.warning("what ended jobs have left is not removed yet: %s", error.message)

    async def _stop_trainings(self) -> None:
        """Stops the Ray Jobs of this cluster: the holder of the lease has its own."""
        try:
            states = await self._submitter.states()
            live = [name for name, state in states.items() if state is Submission.LIVE]
            for name in live:
                logger.warning("the Ray Job %s is stopped: %s manages the jobs", name, self._lease.holder_name)
                await self._submitter.stop(name)
        except UnavailableError:
            return  # the next look tries again
        self._may_train = bool(live)

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
            JobsReadOnlyError: Another service manages the jobs.
            QueueFullError: Too many jobs wait.
            StorageError: Its folder can not be written.
        """
        await self._reading()
        async with self._taking:
            ledger, _ = self._managed()
            if spec.job_id in ledger:
                return ledger.get(spec.job_id)
            if any_name and (same := await self._sent_before(ledger, spec, data)) is not None:
                return same
            ledger.require_free_name(spec)
            if len(ledger.live()) >= self._rules.max_waiting_jobs:
                most = self._rules.max_waiting_jobs
                raise QueueFullError(f"{most} fine-tunes wait or run already", retry_after_s=60.0)
            record = JobRecord.of_spec(spec, created_at=ledger.clock(), accepted=accepted, ignored=ignored)
            await asyncio.to_thread(ledger.create, spec, data, record)
            ledger.enter(spec, record)
            return record

    async def _sent_before(self, ledger: JobRepository, spec: TrainingSpec, data: TrainingData) -> JobRecord | None:
        """The job that this one is, sent again: a proxy does that if the HTTP replica dies before it answers."""
        since = ledger.clock() - _SENT_AGAIN_S
        for record in ledger.since(since):
            if record.status in (JobStatus.FAILED, JobStatus.CANCELLED):
                continue  # who sends it again then wants it done
            known = ledger.specs([record.id]).get(record.id)
            if known is None or known != replace(spec, job_id=known.job_id, model_name=known.model_name):
                continue
            if record.status is JobStatus.COMPLETED and not ledger.is_published(record.id):
                continue  # its model was deleted
            if await asyncio.to_thread(ledger.store.data, record.id) == data:
                return ledger.get(record.id)
        return None

    async def get(self, job_id: str) -> JobRecord:
        """The job as it is now.

        Raises:
            JobNotFoundError: There is none.
        """
        return (await self._reading()).get(job_id)

    async def specs(self, job_ids: Sequence[str]) -> Mapping[str, TrainingSpec]:
        """What jobs were asked to do, by id; without those that are gone or whose spec can not be read."""
        return (await self._reading()).specs(job_ids)

    async def page(self, *, limit: int, after: str | None = None) -> Sequence[JobRecord]:
        """Jobs, newest first; ``after`` is the id of the last one of the page before.

        Raises:
            JobNotFoundError: There is no job ``after``.
        """
        ledger = await self._reading()
        ids = ledger.page(limit=limit, after=after)
        if unread := ledger.unread(ids):
            ledger.remember(await asyncio.to_thread(lambda: {job_id: ledger.store.read(job_id) for job_id in unread}))
        return [ledger.get(job_id) for job_id in ids if job_id in ledger]

    async def live(self) -> Sequence[JobRecord]:
        """Jobs that have not ended, oldest first."""
        return (await self._reading()).live()

    async def cancel(self, job_id: str) -> JobRecord:
        """Stops a job within ten seconds; its checkpoints stay and its name is free. Cancelling twice is one.

        Raises:
            JobNotFoundError: There is none.
            IllegalTransitionError: It has ended another way, perhaps just now.
            JobsReadOnlyError: Another service manages the jobs.
        """
        ledger, supervision = await self._writing()
        ledger.get(job_id)
        supervision.interrupt_start(job_id)
        async with supervision.locks[job_id]:
            record = ledger.get(job_id)
            if record.status is JobStatus.CANCELLED:
                return record
            if not record.status.is_terminal and record.submission_id is not None:
                await supervision.stop(record.submission_id)
                await supervision.keep_log(record)
                record = ledger.fold(job_id, deaf_to={EventType.FAILED})  # what fails now fails of our stop
                if not record.status.is_terminal and ledger.is_published(job_id):
                    record = ledger.complete(job_id)
            if record.status.is_terminal:
                raise IllegalTransitionError(f"the job is {record.status} and can not be cancelled any more")
            record = ledger.apply(job_id, EventType.CANCELLED)
            await self._remove_unneeded(ledger)
            return record

    async def delete(self, job_id: str) -> None:
        """Removes a job that has ended, with its data and checkpoints; its result stays.

        Raises:
            JobNotFoundError: There is none.
            ConflictError: It has not ended.
            JobsReadOnlyError: Another service manages the jobs.
            StorageError: Its folder can not be removed.
        """
        ledger, supervision = await self._writing()
        ledger.get(job_id)
        async with supervision.locks[job_id]:
            record = ledger.get(job_id)
            if not record.status.is_terminal:
                raise ConflictError(f"the job is {record.status}; cancel it before you delete it")
            await asyncio.to_thread(ledger.store.delete, job_id)
            await asyncio.to_thread(ledger.remove_staged, job_id)  # written after its end, if it did not stop
            ledger.forget(job_id)

    async def notes(self, job_id: str, *, after: int = 0) -> Sequence[JobEvent]:
        """The job's diary behind the entry ``after``.

        Raises:
            JobNotFoundError: There is none.
        """
        ledger = await self._reading()
        record = ledger.get(job_id)
        return [] if record.events <= after else ledger.store.notes(job_id, after=after)

    async def logs(self, job_id: str) -> str:
        """What its processes have printed: of earlier attempts from the job's folder, of the last one from Ray.

        Raises:
            JobNotFoundError: There is none.
        """
        ledger = await self._reading()
        record = ledger.get(job_id)
        logs = await asyncio.to_thread(ledger.store.logs, job_id)
        if self._supervision is not None and record.submission_id is not None and not record.status.is_terminal:
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
        ledger = await self._reading()
        ledger.get(job_id)
        return ledger.store.loss_curve(job_id)
