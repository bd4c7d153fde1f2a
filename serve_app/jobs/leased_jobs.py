"""The jobs of a jobs folder, opened as the lease permits: the lease's holder changes them, other services read them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from serve_app.domain.errors import ServiceError, StorageError, UnavailableError
from serve_app.jobs.job_folders import JobFolders
from serve_app.jobs.job_index import JobIndex
from serve_app.jobs.job_policy import JobPolicy
from serve_app.jobs.job_reconciler import JobReconciler
from serve_app.jobs.job_repository import JobRepository
from serve_app.jobs.lease import Lease
from serve_app.jobs.ray_jobs import RayJobs, RayJobState

logger = logging.getLogger(__name__)

T = TypeVar("T")

_RENEWAL_S = 1.0
_REFRESH_S = 1.0  # a service that only reads shows jobs at most this much out of date


class ManagedJobs(NamedTuple):
    """Repository and reconciler, which exist while this service holds the lease."""

    repository: JobRepository
    reconciler: JobReconciler


class LeasedJobs:
    """Keeps the lease, opens the job folders anew whenever it is won or lost, and reconciles jobs while it is held.

    Lives on one event loop. A new one on the same folders continues where its predecessor stopped, whatever has
    happened to the predecessor and to the cluster.
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
        """Touches nothing yet: ``keep_lease`` reads the job folders, ``reconcile`` starts jobs.

        Args:
            root: Folder of the job folders.
            ray_jobs: The cluster's Ray Jobs.
            policy: Limits and timeouts.
            lease: Lease of the folder.
            resources: CPUs and GPUs that are not reserved, by Ray's names; empty if unknown. May block.
            clock: Unix time in seconds.
            uptime: Seconds on a monotonic clock.
        """
        self._root = root
        self._ray_jobs = ray_jobs
        self._policy = policy
        self._lease = lease
        self._resources = resources
        self._clock = clock
        self._uptime = uptime
        self._submit_lock = asyncio.Lock()  # one submission at a time: its checks precede the folder's creation
        self._open_lock = asyncio.Lock()
        self._index: JobIndex | None = None
        self._managed: ManagedJobs | None = None
        self._lease_number: int | None = None  # of the lease under which both were opened
        self._read_at = 0.0
        self._may_train = True  # this cluster may still have Ray Jobs from when it held the lease
        self._logged_holder = ""
        self._lease_error: StorageError | None = None  # of the last poll

    async def keep_lease(self) -> None:
        """Renews the lease, or takes it if its holder has stopped; to be called every second.

        A lease that cannot be written, as on a full disk, leaves the jobs readable.

        Raises:
            StorageError: The folders cannot be read.
        """
        async with self._open_lock:
            number = await self._poll()
            if self._index is None or number != self._lease_number:
                await self._open(number)

    async def release_lease(self) -> None:
        """Releases the lease for good: the service ends, and its successor need not wait for a timeout."""
        await asyncio.to_thread(self._lease.release)
        await self.keep_lease()

    async def reconcile(self) -> None:
        """Brings records and Ray Jobs up to date; to be called every second."""
        await self._readable()
        if self._managed is not None:
            await self._managed.reconciler.reconcile()
            repository, _ = self._require_managed()
            await self._remove_unneeded(repository)
            if old := repository.take_old():
                await asyncio.to_thread(repository.store.remove_leftovers, old)
                repository.mark_clean(old)
        elif self._may_train and self._lease_error is None:  # after such an error no other service has taken them
            await self._stop_trainings()

    async def _readable(self) -> JobIndex:
        """The jobs as they are now, or were a second ago where another service manages them."""
        if self._index is None:
            await self.keep_lease()
        if self._is_out_of_date():
            async with self._open_lock:
                if self._is_out_of_date():
                    await self._open(None)
        assert self._index is not None
        return self._index

    async def _writable(self) -> ManagedJobs:
        """The jobs, to be changed.

        Raises:
            JobsReadOnlyError: Another service manages them.
        """
        await self._readable()
        return self._require_managed()

    def _require_managed(self) -> ManagedJobs:
        if self._managed is None:
            raise self._read_only_error()
        return self._managed

    def _is_out_of_date(self) -> bool:
        return self._lease_number is None and self._uptime() - self._read_at >= _REFRESH_S

    def _read_only_error(self) -> ServiceError:
        return self._lease_error or self._lease.read_only_error()

    def _raise_read_only(self) -> None:
        raise self._read_only_error()

    async def _poll(self) -> int | None:
        """The number of the lease while this service holds it."""
        try:
            number = await asyncio.to_thread(self._lease.poll)
        except StorageError as error:
            if self._lease_error is None or error.message != self._lease_error.message:
                logger.error("%s", error.message)
            self._lease_error = error
            return self._lease.number
        self._lease_error = None
        return number

    async def _open(self, number: int | None) -> None:
        """Reads all job folders, as the holder of the lease under ``number``, or only for reading."""
        check = self._raise_read_only if number is None else partial(self._lease.require, number)
        store = JobFolders(self._root, check_writable=check, creates_root=number is not None)
        if number is None:
            read = partial(JobIndex, store, earlier=self._index)
            self._index = await self._while_renewing(asyncio.to_thread(read))
            self._may_train |= self._managed is not None
            self._managed = None
        else:
            async with self._submit_lock:  # no submission under an earlier lease is still writing
                await self._while_renewing(asyncio.to_thread(store.remove_unfinished))  # a deleted job may be large
            make = partial(JobRepository, store, self._clock)
            repository = await self._while_renewing(asyncio.to_thread(make))  # a first start opens all folders
            reconciler = JobReconciler(repository, self._ray_jobs, self._policy, self._resources, self._uptime)
            self._index, self._managed = repository, ManagedJobs(repository, reconciler)
        self._lease_number, self._read_at = number, self._uptime()
        self._log_holder()

    def _log_holder(self) -> None:
        if self._managed is not None:
            self._logged_holder = ""
        elif self._lease_error is None and self._lease.holder_name != self._logged_holder:
            self._logged_holder = self._lease.holder_name
            logger.warning("the jobs in %s are read-only here: %s", self._root, self._lease.read_only_error().message)

    async def _while_renewing(self, work: Awaitable[T]) -> T:
        """Awaits work that may take longer than the lease lasts, and renews the lease meanwhile."""
        task = asyncio.ensure_future(work)
        while not (await asyncio.wait({task}, timeout=_RENEWAL_S))[0]:
            await self._poll()
        return task.result()

    async def _remove_unneeded(self, repository: JobRepository) -> None:
        """Removes what ended jobs leave, in a thread: the event loop renews the lease meanwhile."""
        if folders := repository.take_unneeded():
            try:
                await asyncio.to_thread(repository.store.remove_folders, folders)
            except ServiceError as error:  # the holder of the lease removes them a day after the jobs have ended
                logger.warning("the files of ended jobs are not removed yet: %s", error.message)

    async def _stop_trainings(self) -> None:
        """Stops the Ray Jobs of this cluster: the holder of the lease starts its own."""
        try:
            states = await self._ray_jobs.states()
            live = [name for name, state in states.items() if state is RayJobState.LIVE]
            for name in live:
                logger.warning("stopping the Ray Job %s: %s manages the jobs", name, self._lease.holder_name)
                await self._ray_jobs.stop(name)
        except UnavailableError:
            return  # tried again a second later
        self._may_train = bool(live)
