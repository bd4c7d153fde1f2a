"""Starting the jobs that wait: a Ray Job for the oldest of them, as many as there is room for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

from serve_app.domain.errors import ServiceError, UnavailableError
from serve_app.jobs.job_record import JobRecord
from serve_app.jobs.job_repository import JobRepository
from serve_app.jobs.job_updates import UpdateType
from serve_app.jobs.ray_jobs import RayJobs
from serve_app.jobs.resource_pool import ResourcePool

logger = logging.getLogger(__name__)

_LATEST_S = 600.0  # a cluster that has not made a Ray Job by then has lost the wish


def next_submission(record: JobRecord) -> str:
    """The id of the Ray Job that the job gets when it has none."""
    return f"{record.id}-{record.attempts + 1}"


class JobLauncher:
    """Starts Ray Jobs."""

    def __init__(
        self,
        repository: JobRepository,
        ray_jobs: RayJobs,
        locks: Mapping[str, asyncio.Lock],
        max_concurrent_jobs: int,
    ) -> None:
        """Takes the records, the cluster, and the lock of each job, which is held while it is started."""
        self._unanswered: dict[str, float] = {}  # Ray Jobs that were asked for, and when
        self._repository = repository
        self._ray_jobs = ray_jobs
        self._locks = locks
        self._max_concurrent_jobs = max_concurrent_jobs
        self._asking: dict[str, asyncio.Task[None]] = {}  # by job

    async def start_waiting(self, resources_left: Callable[[], Awaitable[ResourcePool]]) -> None:
        """Starts the oldest jobs that wait; tells the others what they wait for."""
        live = self._repository.live()
        room = self._max_concurrent_jobs - sum(record.submission_id is not None for record in live)
        for waiting in live:
            if waiting.submission_id is not None or self._locks[waiting.id].locked():
                continue
            free = await resources_left()  # not under the lock: a cluster that is slow to tell holds up nobody
            async with self._locks[waiting.id]:
                try:
                    record = self._repository.get(waiting.id)  # it may have been cancelled while another was started
                    if record.status.is_terminal:
                        continue
                    if room > 0:
                        await self._start(record, free)
                        room -= 1
                    else:
                        self._repository.wait(record, "waiting for another job to end")
                except ServiceError as error:
                    logger.warning("job %s cannot be started: %s", waiting.id, error.message)
                except Exception:
                    logger.exception("job %s cannot be started", waiting.id)

    def interrupt(self, job_id: str) -> None:
        """Waits no longer for the cluster's answer, if a job is being started at this moment.

        The Ray Job may appear all the same, so ``may_appear`` says yes for a while.
        """
        if asking := self._asking.get(job_id):
            asking.cancel()

    def may_appear(self) -> bool:
        """Whether a Ray Job that was asked for without an answer may still appear."""
        too_late = self._repository.clock() - _LATEST_S
        self._unanswered = {name: asked_at for name, asked_at in self._unanswered.items() if asked_at > too_late}
        return bool(self._unanswered)

    def seen(self, submission_ids: Iterable[str]) -> None:
        """Takes note of the Ray Jobs that there are."""
        for submission_id in submission_ids:
            self._unanswered.pop(submission_id, None)

    async def _start(self, record: JobRecord, free: ResourcePool) -> None:
        spec = self._repository.spec(record.id)
        lacking = free.lacking(spec)
        submission_id = next_submission(record)
        self._unanswered[submission_id] = self._repository.clock()
        try:
            await self._ask(record.id, submission_id)
        except UnavailableError as error:
            self._repository.wait(record, f"waiting for the cluster: {error.message}")
            return
        record = self._repository.apply(record.id, UpdateType.SUBMITTED, submission_id=submission_id)
        self.seen([submission_id])
        free.give(spec)
        self._repository.wait(record, lacking and f"waiting for {lacking}")

    async def _ask(self, job_id: str, submission_id: str) -> None:
        """Asks for the Ray Job.

        Raises:
            UnavailableError: The cluster did not answer, or somebody did not want to wait for it.
        """
        folder = self._repository.store.folder(job_id).path
        asking = self._asking[job_id] = asyncio.ensure_future(self._ray_jobs.submit(submission_id, folder))
        try:
            await asyncio.wait({asking})
        finally:
            del self._asking[job_id]
            asking.cancel()  # if we are cancelled ourselves
        if asking.cancelled():
            raise UnavailableError("the start was interrupted")
        asking.result()
