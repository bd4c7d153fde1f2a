"""The processes that train: one Ray Job for each attempt of a job."""

from __future__ import annotations

import asyncio
import logging
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar

import ray
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from serve_app.domain.errors import UnavailableError
from serve_app.jobs.training_spec import ATTEMPT_VARIABLE

logger = logging.getLogger(__name__)

TRAINING: Sequence[str] = (sys.executable, "-m", "training")
_MARK = "retrieval_job"  # metadata that marks the Ray Jobs of this service
_TIMEOUT_S = 15.0  # the client itself has no timeout
_THREADS = 8  # calls at once; a cancellation must not wait for a log
_OF_RAY_TRAIN = {
    # it gives up after a minute; a job that does not fit waits, as pending
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(7 * 24 * 3600),
    # it looks every two seconds, and a worker that has reported a checkpoint waits with the next until it has looked
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}

Result = TypeVar("Result")


class RayJobState(StrEnum):
    """State of a Ray Job. One that Ray does not know has no state."""

    LIVE = "live"
    STOPPED = "stopped"  # by a request
    ENDED = "ended"


_STATES: Mapping[str, RayJobState] = {
    JobStatus.PENDING: RayJobState.LIVE,
    JobStatus.RUNNING: RayJobState.LIVE,
    JobStatus.STOPPED: RayJobState.STOPPED,
    JobStatus.SUCCEEDED: RayJobState.ENDED,
    JobStatus.FAILED: RayJobState.ENDED,
}


class RayJobs(Protocol):
    """The cluster's Ray Jobs; every method may raise ``UnavailableError``."""

    async def submit(self, submission_id: str, folder: Path) -> None:
        """Starts the training of a job folder; does nothing if this submission exists already."""
        ...

    async def states(self) -> Mapping[str, RayJobState]:
        """The service's Ray Jobs that the cluster knows, by submission id."""
        ...

    async def stop(self, submission_id: str) -> None:
        """Begins to stop a Ray Job; does nothing for one that has ended or does not exist."""
        ...

    async def logs(self, submission_id: str) -> str:
        """The output of its driver so far."""
        ...


class RayJobsClient:
    """Implements ``RayJobs`` on the Ray Jobs API; its blocking HTTP calls run in threads."""

    def __init__(
        self,
        *,
        command: Sequence[str] = TRAINING,
        env: Mapping[str, str] | None = None,
        connect: Callable[[], JobSubmissionClient] | None = None,
    ) -> None:
        """Prepares; the first call connects.

        Args:
            command: Program that trains the job folder which is its last argument.
            env: Environment variables of the driver and its workers.
            connect: Makes the client; by default one of the cluster that this process belongs to.
        """
        self._command = tuple(command)
        self._env = {**_OF_RAY_TRAIN, **(env or {})}
        self._connect = connect or _connect
        self._client: JobSubmissionClient | None = None
        self._last_fault = ""
        self._threads = _new_threads()  # its own: a client that hangs must not block other users of threads

    async def submit(self, submission_id: str, folder: Path) -> None:
        """See ``RayJobs.submit``."""
        if submission_id in await self.states():
            return
        entrypoint = shlex.join([*self._command, str(folder)])
        await self._call(
            lambda client: client.submit_job(
                entrypoint=entrypoint,
                submission_id=submission_id,
                entrypoint_num_cpus=0,  # the driver waits; the workers reserve what they need
                runtime_env={"env_vars": {**self._env, ATTEMPT_VARIABLE: submission_id.rpartition("-")[2]}},
                metadata={_MARK: folder.name},
            )
        )

    async def states(self) -> Mapping[str, RayJobState]:
        """See ``RayJobs.states``."""
        jobs: list[JobDetails] = await self._call(lambda client: client.list_jobs())
        return {
            job.submission_id: _STATES[job.status]
            for job in jobs
            if job.submission_id is not None and _MARK in (job.metadata or {})
        }

    async def stop(self, submission_id: str) -> None:
        """See ``RayJobs.stop``."""
        if (await self.states()).get(submission_id) is RayJobState.LIVE:
            await self._call(lambda client: client.stop_job(submission_id))

    async def logs(self, submission_id: str) -> str:
        """See ``RayJobs.logs``."""
        if submission_id not in await self.states():
            return ""
        return str(await self._call(lambda client: client.get_job_logs(submission_id)))

    async def _call(self, function: Callable[[JobSubmissionClient], Result]) -> Result:
        def call() -> Result:
            if self._client is None:
                self._client = self._connect()
            return function(self._client)

        threads = self._threads
        try:
            answer = await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(threads, call), _TIMEOUT_S)
        except Exception as error:  # the client raises RuntimeError, ConnectionError and those of requests and asyncio
            self._client = None
            if isinstance(error, TimeoutError) and threads is self._threads:
                threads.shutdown(wait=False)  # a thread that hangs cannot be ended; the next call uses others
                self._threads = _new_threads()
            if (fault := repr(error)) != self._last_fault:  # called every second, it would fill the log
                logger.warning("the Ray Jobs API does not answer: %s", fault)
                self._last_fault = fault
            raise UnavailableError("the Ray Jobs API does not answer") from error
        self._last_fault = ""
        return answer


def _new_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="ray-jobs")


def _connect() -> JobSubmissionClient:
    """A client of this process's cluster; without an address it would take any cluster on this machine."""
    return JobSubmissionClient(ray.get_runtime_context().gcs_address)
