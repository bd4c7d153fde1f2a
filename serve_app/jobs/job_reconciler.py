"""The reconciler: brings job records and Ray Jobs into agreement, once a second.

What a reconciliation can find, and what it does::

    new updates of the training ─────── fold them into the record
    a Ray Job ended without a result ── start another, from the last checkpoint; fail after too many lost attempts
    Ray does not know the Ray Job ───── the cluster was restarted: the same, with a larger number of attempts
    the Ray Job was stopped ─────────── by the tracker: start another; from outside: cancelled
    no heartbeat for an hour ────────── stop it, start another, unless it waits for resources
    there is room for another job ───── start the oldest queued one
    a Ray Job belongs to no live job ── an orphan: stop it
    a Ray Job is not in its record ──── adopt it: its start was not answered, or the tracker died
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping

from serve_app.domain.errors import ServiceError, UnavailableError
from serve_app.jobs.heartbeat_ages import HeartbeatAges
from serve_app.jobs.job_launcher import JobLauncher, next_submission
from serve_app.jobs.job_policy import JobPolicy
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.job_repository import JobRepository
from serve_app.jobs.job_updates import UpdateType
from serve_app.jobs.ray_jobs import RayJobs, RayJobState
from serve_app.jobs.resource_pool import ResourcePool
from serve_app.jobs.retry_policy import final_failure

logger = logging.getLogger(__name__)

_POSSIBLY_WAITING = "not started yet; possibly waiting for "


class JobReconciler:
    """Reconciles records and Ray Jobs, and stops Ray Jobs."""

    def __init__(
        self,
        repository: JobRepository,
        ray_jobs: RayJobs,
        policy: JobPolicy,
        resources: Callable[[], Mapping[str, float]],
        uptime: Callable[[], float],
    ) -> None:
        """Reconciles nothing yet; ``reconcile`` does, each time that it is called.

        Args:
            repository: The records.
            ray_jobs: The cluster.
            policy: Limits and timeouts.
            resources: CPUs and GPUs that are not reserved, by Ray's names; may block.
            uptime: Seconds on a monotonic clock.
        """
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(
            asyncio.Lock
        )  # held by a task that changes a job across an await
        self._repository = repository
        self._ray_jobs = ray_jobs
        self._policy = policy
        self._resources = resources
        self._may_have_orphans = True  # the tracker before may have died while it stopped one
        self._launcher = JobLauncher(repository, ray_jobs, self.locks, policy.max_concurrent_jobs)
        self._free: ResourcePool | None = None  # asked for at most once in a reconciliation
        self._heartbeat_ages = HeartbeatAges(uptime)

    async def reconcile(self) -> None:
        """Brings everything up to date; an error of one job does not affect the others."""
        self._free = None
        states = await self._states()
        live = self._repository.live()
        self._heartbeat_ages.keep_only({record.id for record in live})
        for record in live:
            if self.locks[record.id].locked():
                continue  # it is being cancelled
            async with self.locks[record.id]:
                try:
                    await self._check(record.id, states)
                except ServiceError as error:
                    logger.warning("job %s: %s", record.id, error.message)
                except Exception:
                    logger.exception("job %s could not be reconciled", record.id)
        await self._launcher.start_waiting(self._resources_left)
        for record in self._repository.live():
            self._heartbeat_ages.seconds(record)  # those that were started just now begin to count

    def interrupt_start(self, job_id: str) -> None:
        """Cancels the start of a job that is under way: it may take longer than a client waits."""
        self._launcher.interrupt(job_id)

    async def stop(self, submission_id: str) -> bool:
        """Stops a Ray Job and waits until it has ended or ``stop_s`` has passed; later reconciliations continue.

        Returns:
            True if it has ended.
        """
        try:
            async with asyncio.timeout(self._policy.stop_s):
                await self._ray_jobs.stop(submission_id)
                while True:
                    if (await self._ray_jobs.states()).get(submission_id) is not RayJobState.LIVE:
                        return True
                    await asyncio.sleep(self._policy.poll_s)
        except (TimeoutError, UnavailableError) as error:
            logger.warning("the Ray Job %s has not ended yet: %s", submission_id, error or "timeout")
            self._may_have_orphans = True
            return False

    async def keep_log(self, record: JobRecord) -> None:
        """Copies the log of the last Ray Job into the job's folder: Ray forgets it with the cluster."""
        if record.submission_id is None:
            return
        try:
            async with asyncio.timeout(self._policy.log_s):
                text = await self._ray_jobs.logs(record.submission_id)
        except (TimeoutError, UnavailableError):
            return
        if text:
            self._repository.store.save_log(record.id, f"ray-{record.attempts}", text)

    # ------------------------------------------------------------------ Ray Jobs and resources

    async def _states(self) -> Mapping[str, RayJobState] | None:
        """The Ray Jobs of the service, orphans stopped; None if they are not needed or Ray does not answer."""
        live = self._repository.live()
        if not live and not self._may_have_orphans and not self._launcher.may_appear():
            return None
        written = {record.submission_id for record in live}
        unwritten = {next_submission(record) for record in live if record.submission_id is None}
        self._may_have_orphans = False
        try:
            states = await self._ray_jobs.states()
            unknown = {name for name, state in states.items() if state is RayJobState.LIVE} - written
            for orphan in unknown - unwritten:
                logger.info("stopping the Ray Job %s: it belongs to no live job", orphan)
                await self._ray_jobs.stop(orphan)
        except UnavailableError:
            self._may_have_orphans = True
            return None
        self._may_have_orphans |= bool(unknown)  # an unrecorded one becomes an orphan if its job ends
        self._launcher.seen(states)
        return states

    async def _resources_left(self) -> ResourcePool:
        if self._free is None:
            self._free = ResourcePool(await asyncio.to_thread(self._resources))
        return self._free

    # ------------------------------------------------------------------ one job

    async def _check(self, job_id: str, states: Mapping[str, RayJobState] | None) -> None:
        self._adopt_orphan(self._repository.get(job_id), states)
        record = self._repository.fold(job_id)
        if record.status.is_terminal:
            await self.keep_log(record)
        elif record.submission_id is not None and states is not None:
            state = states.get(record.submission_id)
            if state is RayJobState.LIVE:
                await self._check_live(record)
            else:
                await self._handle_exit(record, state)

    def _adopt_orphan(self, record: JobRecord, states: Mapping[str, RayJobState] | None) -> None:
        """Records the Ray Job of a job whose record has none."""
        if states is None or record.status.is_terminal or record.submission_id is not None:
            return
        if (submission_id := next_submission(record)) in states:
            self._repository.apply(record.id, UpdateType.SUBMITTED, submission_id=submission_id)

    async def _check_live(self, record: JobRecord) -> None:
        if record.status is JobStatus.PENDING:
            record = await self._check_resources(record)
        if record.submission_id and self._is_unresponsive(record):
            if record.stopping is None:  # recorded first, so that the next tracker knows the reason
                record = self._repository.apply(record.id, UpdateType.STOPPING, reason=self._timeout_reason(record))
            if await self.stop(record.submission_id or ""):
                self._record_loss(record, record.stopping or "")

    async def _check_resources(self, record: JobRecord) -> JobRecord:
        """Records which resources a job lacks that has a Ray Job and does not train yet.

        For one that is slow to start this is a guess: its own workers may have reserved what seems to be lacking.
        """
        reason = record.pending_reason
        if reason is None and self._heartbeat_ages.seconds(record) < self._policy.slow_start_s:
            return record
        lacking = (await self._resources_left()).lacking(self._repository.spec(record.id))
        is_guess = reason is None or reason.startswith(_POSSIBLY_WAITING)
        self._repository.wait(record, lacking and (_POSSIBLY_WAITING if is_guess else "waiting for ") + lacking)
        return self._repository.get(record.id)

    def _is_unresponsive(self, record: JobRecord) -> bool:
        return record.pending_reason is None and self._heartbeat_ages.seconds(record) > self._policy.heartbeat_timeout_s

    def _timeout_reason(self, record: JobRecord) -> str:
        what = "reported nothing" if record.status is JobStatus.RUNNING else "lacked no resources and did not start"
        return f"the training {what} for {self._heartbeat_ages.seconds(record):.0f} s and was stopped"

    async def _handle_exit(self, record: JobRecord, state: RayJobState | None) -> None:
        """Handles a Ray Job that ended while its last update, folded already, was not about the end."""
        await self.keep_log(record)
        if self._repository.is_published(record.id):
            self._repository.complete(record.id)
        elif state is RayJobState.STOPPED and record.stopping is not None:
            self._record_loss(record, record.stopping)  # by the tracker, earlier
        elif state is RayJobState.STOPPED:
            self._repository.apply(
                record.id, UpdateType.CANCELLED, reason="cancelled: its Ray Job was stopped from outside"
            )
        elif state is RayJobState.ENDED:
            self._record_loss(record, "the training process died")
        else:
            self._record_loss(record, "the cluster was restarted", loss=UpdateType.INTERRUPTED)

    def _record_loss(self, record: JobRecord, reason: str, *, loss: UpdateType = UpdateType.LOST) -> None:
        why = final_failure(record, loss, self._policy.retry_policy)
        if why is None:
            self._repository.apply(record.id, loss, reason=reason)
        else:
            self._repository.apply(record.id, UpdateType.FAILED, reason=f"{reason}, {why}; see /jobs/{record.id}/logs")
