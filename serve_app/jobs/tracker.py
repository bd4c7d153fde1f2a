"""The actor that owns all jobs of a cluster: one writer, known by name, there again after any crash.

A shell around ``JobService``. It is detached, so it outlives the application; and all it knows is in the job
folders, so it may be killed at any time. Trackers of several clusters may share one jobs folder: the holder of its
lease writes.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError

from serve_app import __version__
from serve_app.domain.background import BackgroundTasks
from serve_app.domain.errors import UnavailableError
from serve_app.jobs.job_events import JobEvent
from serve_app.jobs.job_folders import TrainingData
from serve_app.jobs.job_reconciler import JobPolicy
from serve_app.jobs.job_record import JobRecord
from serve_app.jobs.job_service import JobService
from serve_app.jobs.lease import Lease, LeaseHolder
from serve_app.jobs.process_identity import raylet_process
from serve_app.jobs.ray_jobs import TRAINING, RayJobsClient
from serve_app.jobs.training_spec import CLUSTER_VARIABLE, LEASE_VARIABLE, TrainingSpec

logger = logging.getLogger(__name__)

NAME, NAMESPACE = "JobTracker", "retrieval"
_LOOK_S = 1.0
_RENEWAL_S = 1.0
_RELEASE_S = 3.0
_REPLACE_TRIES = 50
_REPLACE_PAUSE_S = 0.2


@dataclass(frozen=True)
class TrackerConfig:
    """What a tracker is told at its creation.

    Attributes:
        jobs_dir: Folder of the job folders, on a disk that all nodes share.
        policy: How jobs are treated.
        command: Program that trains the job folder which is its last argument.
        env: Environment variables of the training.
        version: Of the code; a tracker of another version is replaced.
    """

    jobs_dir: Path
    policy: JobPolicy = field(default_factory=JobPolicy)
    command: Sequence[str] = tuple(TRAINING)
    env: Mapping[str, str] = field(default_factory=dict)
    version: str = __version__


class JobTracker:
    """The actor. Its methods are those of ``JobService``."""

    async def __init__(self, config: TrackerConfig) -> None:  # type: ignore[misc]
        """Reads all job folders and begins to look after them.

        Raises:
            StorageError: The folders can not be read. A disk that is full or mounted read-only is no reason.
        """
        self._config = config
        context = ray.get_runtime_context()
        cluster = context.get_session_name()
        env = {**config.env, CLUSTER_VARIABLE: context.gcs_address, LEASE_VARIABLE: cluster}
        ray_jobs = RayJobsClient(command=config.command, env=env)
        name = f"the service on {socket.gethostname()} (Ray cluster {context.gcs_address}, {cluster})"
        lease = Lease(config.jobs_dir, LeaseHolder(cluster, name, raylet_process()))
        self._jobs = JobService(config.jobs_dir, ray_jobs, config.policy, lease, resources=_available)
        await self._jobs.keep_lease()
        self._tasks = BackgroundTasks()
        self._tasks.every("lease of the jobs", _RENEWAL_S, self._jobs.keep_lease)  # a look may wait for Ray
        self._tasks.every("look at the jobs", _LOOK_S, self._jobs.reconcile)

    async def config(self) -> TrackerConfig:
        """What it was told at its creation."""
        return self._config

    async def submit(
        self, spec: TrainingSpec, data: TrainingData, *, accepted: int, ignored: int, has_generated_name: bool = False
    ) -> JobRecord:
        """See ``JobService.submit``."""
        return await self._jobs.submit(
            spec, data, accepted=accepted, ignored=ignored, has_generated_name=has_generated_name
        )

    async def get(self, job_id: str) -> JobRecord:
        """See ``JobService.get``."""
        return await self._jobs.get(job_id)

    async def specs(self, job_ids: Sequence[str]) -> Mapping[str, TrainingSpec]:
        """See ``JobService.specs``."""
        return await self._jobs.specs(job_ids)

    async def page(self, *, limit: int, after: str | None = None) -> Sequence[JobRecord]:
        """See ``JobService.page``."""
        return await self._jobs.page(limit=limit, after=after)

    async def live(self) -> Sequence[JobRecord]:
        """See ``JobService.live``."""
        return await self._jobs.live()

    async def cancel(self, job_id: str) -> JobRecord:
        """See ``JobService.cancel``."""
        return await self._jobs.cancel(job_id)

    async def delete(self, job_id: str) -> None:
        """See ``JobService.delete``."""
        await self._jobs.delete(job_id)

    async def events(self, job_id: str, *, after: int = 0) -> Sequence[JobEvent]:
        """See ``JobService.events``."""
        return await self._jobs.events(job_id, after=after)

    async def logs(self, job_id: str) -> str:
        """See ``JobService.logs``."""
        return await self._jobs.logs(job_id)

    async def loss_curve(self, job_id: str) -> str | None:
        """See ``JobService.loss_curve``."""
        return await self._jobs.loss_curve(job_id)

    async def release_lease(self) -> None:
        """See ``JobService.release_lease``."""
        await self._jobs.release_lease()


async def ensure_tracker(config: TrackerConfig, *, replaces: bool = True) -> Any:
    """The handle of the cluster's tracker; creates it if there is none.

    Args:
        config: Of a new one.
        replaces: Whether one with another config is replaced. Only who starts may do so: while an old and a new
            configuration are served side by side, each would kill the other's for ever.

    Raises:
        StorageError: The job folders can not be used.
        UnavailableError: No tracker came up.
    """
    actor: Any = ray.remote(JobTracker).options(
        name=NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=1000,
    )
    for _ in range(_REPLACE_TRIES):
        handle = actor.remote(config)
        try:
            if await handle.config.remote() == config or not replaces:
                return handle
            logger.info("the job tracker has another configuration; it is replaced")
            ray.kill(handle)
        except RayActorError as error:
            if isinstance(cause := error.__cause__, Exception) and not isinstance(cause, RayActorError):
                raise cause from None
        await asyncio.sleep(_REPLACE_PAUSE_S)
    raise UnavailableError("the job tracker does not come up; see the Ray dashboard")


def release_jobs() -> None:
    """Has the cluster's tracker, if there is one, give up the lease of its jobs: the cluster is about to end."""
    try:
        tracker = ray.get_actor(NAME, namespace=NAMESPACE)
        ray.get(tracker.release_lease.remote(), timeout=_RELEASE_S)
    except Exception as error:  # a successor waits until the lease has been silent for a while
        logger.info("the lease of the jobs is not released: %r", error)


def _available() -> Mapping[str, float]:
    """What nobody has reserved; nothing if the cluster does not tell."""
    try:
        return dict(ray.available_resources())
    except Exception as error:
        logger.warning("the cluster does not tell its free resources: %r", error)
        return {}
