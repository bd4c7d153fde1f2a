"""What clients may do with fine-tuning jobs. Knows no Ray: the cluster is a ``RayJobs``.

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
from serve_app.jobs.job_reconciler import JobPolicy, JobReconciler
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.job_repository import JobRepository
from serve_app.jobs.job_updates import UpdateType
from serve_app.jobs.lease import Lease
from serve_app.jobs.ray_jobs import RayJobs, RayJobState
from serve_app.jobs.training_spec import TrainingSpec

logger = logging.getLogger(__name__)

T = TypeVar("T")

_DUPLICATE_WINDOW_S = 60.0  # a repetition comes at once; who waits longer means another job
_RENEWAL_S = 1.0
_REFRESH_S = 1.0  # so old may be what is told of jobs that another service manages


class JobService:
    """All fine-tuning jobs of a service; lives on one event loop.

    A new one on the same folders goes on where the old one was, whatever has happened to that and to the cluster.
    """

    def __init__(
        self,
        root: Path,
        ray_jobs: RayJobs,
        policy: JobPolicy,
        lease: Lease,
        *,
        resources: Callable[[], Mapping[str, float]] = dict,
        clock: Callable[[], float] = time.time,
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        """Touches nothing yet: ``keep_lease`` reads the job folders, ``look`` sets them going.

        Args:
            root: Folder of the job folders.
            ray_jobs: The cluster.
            policy: How jobs are treated.
            lease: Of the folder.
            resources: CPUs and GPUs that nobody has reserved, in Ray's words; nothing if unknown. May block.
            clock: Unix time in seconds.
            uptime: Seconds on a clock that is never set.
        """
        self._root = root
        self._ray_jobs = ray_jobs
        self._policy = policy
        self._lease = lease
        self._resources = resources
        self._clock = clock
        self._uptime = uptime
        self._submit_lock = asyncio.Lock()  # one at a time: names and numbers are looked at before a folder is there
        self._open_lock = asyncio.Lock()
        self._repository: JobRepository | None = None
        self._reconciler: JobReconciler | None = None  # there while this service holds the lease
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
        async with self._open_lock:
            number = await self._poll()
            if self._repository is None or number != self._number:
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
        check = self._raise_read_only if number is None else partial(self._lease.require, number)
        store = JobFolders(self._root, check_writable=check, creates_root=number is not None)
        if number is not None:
            async with self._submit_lock:  # what was being written under an earlier lease is over
                await self._while_renewing(asyncio.to_thread(store.remove_unfinished))  # a deleted job may be large
        earlier = self._repository if number is None else None
        make = partial(JobRepository, store, self._clock, writes=number is not None, earlier=earlier)
        repository = await self._while_renewing(asyncio.to_thread(make))  # a first start opens all folders
        self._repository, self._number, self._read_at = repository, number, self._uptime()
        if number is not None:
            self._reconciler = JobReconciler(repository, self._ray_jobs, self._policy, self._resources, self._uptime)
            self._logged_holder = ""
            return
        self._may_train |= self._reconciler is not None
        self._reconciler = None
        if self._lease_fault is None and self._lease.holder_name != self._logged_holder:
            self._logged_holder = self._lease.holder_name
            logger.warning("the jobs in %s are read-only here: %s", self._root, self._lease.read_only_error().message)

    async def _while_renewing(self, work: Awaitable[T]) -> T:
        """The result of work that may take longer than a holder of the lease may be silent."""
        task = asyncio.ensure_future(work)
        while not (await asyncio.wait({task}, timeout=_RENEWAL_S))[0]:
            await self._poll()
        return task.result()

    def _raise_read_only(self) -> None:
        raise self._read_only_error()

    def _read_only_error(self) -> ServiceError:
        return self._lease_fault or self._lease.read_only_error()

    async def _readable(self) -> JobRepository:
        """The jobs as they are now, or were a second ago where another service manages them."""
        if self._repository is None:
            await self.keep_lease()
        if self._number is None and self._uptime() - self._read_at >= _REFRESH_S:
            async with self._open_lock:
                if self._number is None and self._uptime() - self._read_at >= _REFRESH_S:
                    await self._open(None)
        assert self._repository is not None
        return self._repository

    async def _writable(self) -> tuple[JobRepository, JobReconciler]:
        """The jobs, to be changed.

        Raises:
            JobsReadOnlyError: Another service manages them.
        """
        await self._readable()
        return self._managed()

    def _managed(self) -> tuple[JobRepository, JobReconciler]:
        if self._repository is None or self._reconciler is None:
            raise self._read_only_error()
        return self._repository, self._reconciler

    async def reconcile(self) -> None:
        """Brings everything up to date; to be called every second."""
        await self._readable()
        if self._reconciler is not None:
            await self._reconciler.reconcile()
            repository, _ = self._managed()
            await self._remove_unneeded(repository)
            if old := repository.take_old():
                await asyncio.to_thread(repository.store.remove_leftovers, old)
                repository.mark_clean(old)
        elif self._may_train and self._lease_fault is None:  # else nobody else has taken them
            await self._stop_trainings()

    async def _remove_unneeded(self, repository: JobRepository) -> None:
        """Removes what ended jobs leave, off the event loop, on which the lease is renewed meanwhile."""
        if folders := repository.take_unneeded():
            try:
                await asyncio.to_thread(repository.store.remove_folders, folders)
            except ServiceError as error:  # the holder of the lease removes them a day after the jobs have ended
                logger.warning("what ended jobs have left is not removed yet: %s", error.message)

    async def _stop_trainings(self) -> None:
        """Stops the Ray Jobs of this cluster: the holder of the lease has its own."""
        try:
            states = await self._ray_jobs.states()
            live = [name for name, state in states.items() if state is RayJobState.LIVE]
            for name in live:
                logger.warning("the Ray Job %s is stopped: %s manages the jobs", name, self._lease.holder_name)
                await self._ray_jobs.stop(name)
        except UnavailableError:
            return  # the next look tries again
        self._may_train = bool(live)

    async def submit(
        self, spec: TrainingSpec, data: TrainingData, *, accepted: int, ignored: int, has_generated_name: bool = False
    ) -> JobRecord:
        """Takes a job. The same job twice is one job, so that a caller may ask again.

        Args:
            spec: What is to be done.
            data: With what.
            accepted: Examples in it.
            ignored: Lines of the client's that are not.
            has_generated_name: The client gave no name, so an identical request within a minute is the same job. With
                a name of the client's own it is a conflict that names the first job.

        Raises:
            ConflictError: The name is taken.
            JobsReadOnlyError: Another service manages the jobs.
            QueueFullError: Too many jobs wait.
            StorageError: Its folder can not be written.
        """
        await self._readable()
        async with self._submit_lock:
            repository, _ = self._managed()
            if spec.job_id in repository:
                return repository.get(spec.job_id)
            if has_generated_name and (same := await self._find_duplicate(repository, spec, data)) is not None:
                return same
            repository.require_free_name(spec)
            if len(repository.live()) >= self._policy.max_waiting_jobs:
                most = self._policy.max_waiting_jobs
                raise QueueFullError(f"{most} fine-tunes wait or run already", retry_after_s=60.0)
            record = JobRecord.of_spec(spec, created_at=repository.clock(), accepted=accepted, ignored=ignored)
            await asyncio.to_thread(repository.create, spec, data, record)
            repository.enter(spec, record)
            return record

    async def _find_duplicate(
        self, repository: JobRepository, spec: TrainingSpec, data: TrainingData
    ) -> JobRecord | None:
        """The job that this one is, sent again: a proxy does that if the HTTP replica dies before it answers."""
        since = repository.clock() - _DUPLICATE_WINDOW_S
        for record in repository.since(since):
            if record.status in (JobStatus.FAILED, JobStatus.CANCELLED):
                continue  # who sends it again then wants it done
            known = repository.specs([record.id]).get(record.id)
            if known is None or known != replace(spec, job_id=known.job_id, model_name=known.model_name):
                continue
            if record.status is JobStatus.COMPLETED and not repository.is_published(record.id):
                continue  # its model was deleted
            if await asyncio.to_thread(repository.store.data, record.id) == data:
                return repository.get(record.id)
        return None

    async def get(self, job_id: str) -> JobRecord:
        """The job as it is now.

        Raises:
            JobNotFoundError: There is none.
        """
        return (await self._readable()).get(job_id)

    async def specs(self, job_ids: Sequence[str]) -> Mapping[str, TrainingSpec]:
        """What jobs were asked to do, by id; without those that are gone or whose spec can not be read."""
        return (await self._readable()).specs(job_ids)

    async def page(self, *, limit: int, after: str | None = None) -> Sequence[JobRecord]:
        """Jobs, newest first; ``after`` is the id of the last one of the page before.

        Raises:
            JobNotFoundError: There is no job ``after``.
        """
        repository = await self._readable()
        ids = repository.page(limit=limit, after=after)
        if unread := repository.unread(ids):
            repository.remember(
                await asyncio.to_thread(lambda: {job_id: repository.store.read(job_id) for job_id in unread})
            )
        return [repository.get(job_id) for job_id in ids if job_id in repository]

    async def live(self) -> Sequence[JobRecord]:
        """Jobs that have not ended, oldest first."""
        return (await self._readable()).live()

    async def cancel(self, job_id: str) -> JobRecord:
        """Stops a job within ten seconds; its checkpoints stay and its name is free. Cancelling twice is one.

        Raises:
            JobNotFoundError: There is none.
            IllegalTransitionError: It has ended another way, perhaps just now.
            JobsReadOnlyError: Another service manages the jobs.
        """
        repository, reconciler = await self._writable()
        repository.get(job_id)
        reconciler.interrupt_start(job_id)
        async with reconciler.locks[job_id]:
            record = repository.get(job_id)
            if record.status is JobStatus.CANCELLED:
                return record
            if not record.status.is_terminal and record.submission_id is not None:
                await reconciler.stop(record.submission_id)
                await reconciler.keep_log(record)
                record = repository.fold(job_id, ignoring={UpdateType.FAILED})  # what fails now fails of our stop
                if not record.status.is_terminal and repository.is_published(job_id):
                    record = repository.complete(job_id)
            if record.status.is_terminal:
                raise IllegalTransitionError(f"the job is {record.status} and can not be cancelled any more")
            record = repository.apply(job_id, UpdateType.CANCELLED)
            await self._remove_unneeded(repository)
            return record

    async def delete(self, job_id: str) -> None:
        """Removes a job that has ended, with its data and checkpoints; its result stays.

        Raises:
            JobNotFoundError: There is none.
            ConflictError: It has not ended.
            JobsReadOnlyError: Another service manages the jobs.
            StorageError: Its folder can not be removed.
        """
        repository, reconciler = await self._writable()
        repository.get(job_id)
        async with reconciler.locks[job_id]:
            record = repository.get(job_id)
            if not record.status.is_terminal:
                raise ConflictError(f"the job is {record.status}; cancel it before you delete it")
            await asyncio.to_thread(repository.store.delete, job_id)
            await asyncio.to_thread(repository.remove_staged, job_id)  # written after its end, if it did not stop
            repository.forget(job_id)

    async def events(self, job_id: str, *, after: int = 0) -> Sequence[JobEvent]:
        """The job's diary behind the entry ``after``.

        Raises:
            JobNotFoundError: There is none.
        """
        repository = await self._readable()
        record = repository.get(job_id)
        return [] if record.events <= after else repository.store.events(job_id, after=after)

    async def logs(self, job_id: str) -> str:
        """What its processes have printed: of earlier attempts from the job's folder, of the last one from Ray.

        Raises:
            JobNotFoundError: There is none.
        """
        repository = await self._readable()
        record = repository.get(job_id)
        logs = await asyncio.to_thread(repository.store.logs, job_id)
        if self._reconciler is not None and record.submission_id is not None and not record.status.is_terminal:
            try:
                logs[f"ray-{record.attempts}"] = await self._ray_jobs.logs(record.submission_id)
            except UnavailableError as error:
                logs[f"ray-{record.attempts}"] = error.message
        return "\n".join(f"==> {name} <==\n{text}" for name, text in logs.items() if text)

    async def loss_curve(self, job_id: str) -> str | None:
        """The loss curve as SVG, if there is one yet.

        Raises:
            JobNotFoundError: There is none.
        """
        repository = await self._readable()
        repository.get(job_id)
        return repository.store.loss_curve(job_id)
