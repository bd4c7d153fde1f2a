"""Keeping records and Ray Jobs in step: one look at everything, once a second.

What a look can find, and what it does::

    the training has said something ─── fold it into the record
    a Ray Job has died without a word ─ start another, from the last checkpoint; fail after three that got nowhere
    Ray does not know the Ray Job ───── the cluster was restarted: the same, but that is hardly the job's fault
    somebody stopped the Ray Job ────── cancelled
    it is silent for an hour ────────── stop it, start another; one that waits for resources may be silent
    there is room for another job ───── start the oldest that waits
    a Ray Job belongs to no live job ── stop it
    a Ray Job is not in its record ──── whoever started it died, or was not answered: write it down
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
    """The looks, and the stopping of Ray Jobs."""

    def __init__(
        self,
        repository: JobRepository,
        ray_jobs: RayJobs,
        policy: JobPolicy,
        resources: Callable[[], Mapping[str, float]],
        uptime: Callable[[], float],
    ) -> None:
        """Takes what it watches over.

        Args:
            repository: The records.
            ray_jobs: The cluster.
            policy: How jobs are treated.
            resources: CPUs and GPUs that nobody has reserved, in Ray's words; may block.
            uptime: Seconds on a clock that is never set.
        """
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # whoever changes a job across a pause
        self._repository = repository
        self._ray_jobs = ray_jobs
        self._policy = policy
        self._resources = resources
        self._may_have_orphans = True  # whoever was here before may have died while it stopped one
        self._launcher = JobLauncher(repository, ray_jobs, self.locks, policy.max_concurrent_jobs)
        self._free: ResourcePool | None = None  # asked for once in a look, if somebody wants to know
        self._heartbeat_ages = HeartbeatAges(uptime)

    async def reconcile(self) -> None:
        """Brings everything up to date; what goes wrong with one job stays with that job."""
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
                    logger.exception("job %s could not be looked after", record.id)
        await self._launcher.start_waiting(self._resources_left)
        for record in self._repository.live():
            self._heartbeat_ages.seconds(record)  # those that were started just now begin to count

    def interrupt_start(self, job_id: str) -> None:
        """Gives up to start a job, if that is being done at this moment: it may take longer than a client waits."""
        self._launcher.interrupt(job_id)

    async def stop(self, submission_id: str) -> bool:
        """Stops a Ray Job and waits until it has ended, but not for ever; then later looks see to it.

        Returns:
            Whether it has ended.
        """
        try:
            async with asyncio.timeout(self._policy.stop_s):
                await self._ray_jobs.stop(submission_id)
                while True:
                    if (await self._ray_jobs.states()).get(submission_id) is not RayJobState.LIVE:
                        return True
                    await asyncio.sleep(self._policy.poll_s)
        except (TimeoutError, UnavailableError) as error:
            logger.warning("the Ray Job %s has not ended yet: %s", submission_id, error or "it takes its time")
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

    # ------------------------------------------------------------------ what there is

    async def _states(self) -> Mapping[str, RayJobState] | None:
        """Our Ray Jobs, strays stopped; None if nobody needs to know or Ray does not answer."""
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
                logger.info("the Ray Job %s belongs to no job that goes on; it is stopped", orphan)
                await self._ray_jobs.stop(orphan)
        except UnavailableError:
            self._may_have_orphans = True
            return None
        self._may_have_orphans |= bool(unknown)  # one that is to be written down is a orphan if its job ends before
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
        """Writes down the Ray Job of a job that has none, as far as its record knows."""
        if states is None or record.status.is_terminal or record.submission_id is not None:
            return
        if (submission_id := next_submission(record)) in states:
            self._repository.apply(record.id, UpdateType.SUBMITTED, submission_id=submission_id)

    async def _check_live(self, record: JobRecord) -> None:
        if record.status is JobStatus.PENDING:
            record = await self._check_resources(record)
        if record.submission_id and self._is_unresponsive(record):
            if record.stopping is None:  # written down first, so that the next tracker knows who stopped it
                record = self._repository.apply(record.id, UpdateType.STOPPING, reason=self._timeout_reason(record))
            if await self.stop(record.submission_id or ""):
                self._record_loss(record, record.stopping or "")

    async def _check_resources(self, record: JobRecord) -> JobRecord:
        """Says what a job lacks that has a Ray Job and does not train yet.

        Where it is slow to start, this is a guess: what is lacking may be what its own workers have reserved.
        """
        reason = record.pending_reason
        if reason is None and self._silent_s(record) < self._policy.slow_start_s:
            return record
        lacking = (await self._resources_left()).lacking(self._repository.spec(record.id))
        is_guess = reason is None or reason.startswith(_POSSIBLY_WAITING)
        self._repository.wait(record, lacking and (_POSSIBLY_WAITING if is_guess else "waiting for ") + lacking)
        return self._repository.get(record.id)

    def _silent_s(self, record: JobRecord) -> float:
        return self._heartbeat_ages.seconds(record)

    def _is_unresponsive(self, record: JobRecord) -> bool:
        return record.pending_reason is None and self._silent_s(record) > self._policy.max_silence_s

    def _timeout_reason(self, record: JobRecord) -> str:
        what = "was silent" if record.status is JobStatus.RUNNING else "lacked nothing and did not begin"
        return f"the training {what} for {self._silent_s(record):.0f} s and was stopped"

    async def _handle_exit(self, record: JobRecord, state: RayJobState | None) -> None:
        """Its Ray Job has ended and its last words, folded already, were not about its end."""
        await self.keep_log(record)
        if self._repository.is_published(record.id):
            self._repository.complete(record.id)
        elif state is RayJobState.STOPPED and record.stopping is not None:
            self._record_loss(record, record.stopping)  # by us, and it took its time
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
            self._repository.apply(
                record.id, UpdateType.FAILED, reason=f"{reason}, {why}; /jobs/{record.id}/logs tells more"
            )
