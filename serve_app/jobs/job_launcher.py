"""Starts of queued jobs: a Ray Job for each, the oldest first, as many as may run at once."""

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

_LATEST_S = 600.0  # a Ray Job whose start was not answered appears by then or never


def next_submission(record: JobRecord) -> str:
    """The id of a job's next Ray Job."""
    return f"{record.id}-{record.attempts + 1}"


class JobLauncher:
    """Starts Ray Jobs for queued jobs."""

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
        self._submissions: dict[str, asyncio.Task[None]] = {}  # by job

    async def start_waiting(self, resources_left: Callable[[], Awaitable[ResourcePool]]) -> None:
        """Starts the oldest queued jobs; records what the others wait for."""
        live = self._repository.live()
        room = self._max_concurrent_jobs - sum(record.submission_id is not None for record in live)
        for waiting in live:
            if waiting.submission_id is not None or self._locks[waiting.id].locked():
                continue
            free = await resources_left()  # outside the lock: a slow answer must not delay a cancellation
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
        """Stops waiting for the cluster's answer to the start of a job.

        The Ray Job may appear all the same, so ``may_appear`` is true for a while.
        """
        if submission := self._submissions.get(job_id):
            submission.cancel()

    def may_appear(self) -> bool:
        """True while a Ray Job whose start was not answered may still appear."""
        too_late = self._repository.clock() - _LATEST_S
        self._unanswered = {name: asked_at for name, asked_at in self._unanswered.items() if asked_at > too_late}
        return bool(self._unanswered)

    def seen(self, submission_ids: Iterable[str]) -> None:
        """Records the Ray Jobs that exist."""
        for submission_id in submission_ids:
            self._unanswered.pop(submission_id, None)

    async def _start(self, record: JobRecord, free: ResourcePool) -> None:
        spec = self._repository.spec(record.id)
        lacking = free.lacking(spec)
        submission_id = next_submission(record)
        self._unanswered[submission_id] = self._repository.clock()
        try:
            await self._submit(record.id, submission_id)
        except UnavailableError as error:
            self._repository.wait(record, f"waiting for the cluster: {error.message}")
            return
        record = self._repository.apply(record.id, UpdateType.SUBMITTED, submission_id=submission_id)
        self.seen([submission_id])
        free.give(spec)
        self._repository.wait(record, lacking and f"waiting for {lacking}")

    async def _submit(self, job_id: str, submission_id: str) -> None:
        """Submits the Ray Job.

        Raises:
            UnavailableError: The cluster did not answer, or the start was interrupted.
        """
        folder = self._repository.store.folder(job_id).path
        submission = self._submissions[job_id] = asyncio.ensure_future(self._ray_jobs.submit(submission_id, folder))
        try:
            await asyncio.wait({submission})
        finally:
            del self._submissions[job_id]
            submission.cancel()  # if this task is cancelled itself
        if submission.cancelled():
            raise UnavailableError("the start was interrupted")
        submission.result()
