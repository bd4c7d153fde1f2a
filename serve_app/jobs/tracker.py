"""The named actor that manages all jobs of a cluster; Ray restarts it after a crash.

It is detached, so it outlives the application; and all its state is in the job folders, so it may be killed at any
time. Trackers of several clusters may share one jobs folder: the holder of its lease writes.
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
from serve_app.jobs.job_policy import JobPolicy
from serve_app.jobs.job_service import JobService
from serve_app.jobs.lease import Lease
from serve_app.jobs.lease_file import LeaseHolder
from serve_app.jobs.process_identity import raylet_process
from serve_app.jobs.ray_jobs import TRAINING, RayJobsClient
from serve_app.jobs.training_spec import CLUSTER_VARIABLE, LEASE_VARIABLE

logger = logging.getLogger(__name__)

NAME, NAMESPACE = "JobTracker", "retrieval"
_RECONCILE_S = 1.0
_RENEWAL_S = 1.0
_RELEASE_S = 3.0
_REPLACE_TRIES = 50
_REPLACE_PAUSE_S = 0.2


@dataclass(frozen=True)
class TrackerConfig:
    """Configuration of a tracker.

    Attributes:
        jobs_dir: Folder of the job folders, on a disk that all nodes share.
        policy: Limits and timeouts.
        command: Program that trains the job folder which is its last argument.
        env: Environment variables of the training.
        version: Of the code; a tracker of another version is replaced.
    """

    jobs_dir: Path
    policy: JobPolicy = field(default_factory=JobPolicy)
    command: Sequence[str] = tuple(TRAINING)
    env: Mapping[str, str] = field(default_factory=dict)
    version: str = __version__


class JobTracker(JobService):
    """The actor: ``JobService`` with a lease of its own and a loop that reconciles once a second."""

    async def __init__(self, config: TrackerConfig) -> None:  # type: ignore[misc]
        """Reads all job folders and begins to reconcile.

        Raises:
            StorageError: The folders cannot be read. A disk that is full or mounted read-only is not an error.
        """
        context = ray.get_runtime_context()
        cluster = context.get_session_name()
        env = {**config.env, CLUSTER_VARIABLE: context.gcs_address, LEASE_VARIABLE: cluster}
        name = f"the service on {socket.gethostname()} (Ray cluster {context.gcs_address}, {cluster})"
        lease = Lease(config.jobs_dir, LeaseHolder(cluster, name, raylet_process()))
        ray_jobs = RayJobsClient(command=config.command, env=env)
        super().__init__(config.jobs_dir, ray_jobs, config.policy, lease, resources=_available)
        self._config = config
        await self.keep_lease()
        self._tasks = BackgroundTasks()
        self._tasks.every("lease of the jobs", _RENEWAL_S, self.keep_lease)  # a reconciliation may wait for Ray
        self._tasks.every("reconcile the jobs", _RECONCILE_S, self.reconcile)

    async def config(self) -> TrackerConfig:
        """The configuration at its creation."""
        return self._config


async def ensure_tracker(config: TrackerConfig, *, replaces: bool = True) -> Any:
    """The handle of the cluster's tracker; creates it if it is missing.

    Args:
        config: Of a new one.
        replaces: Whether one with another config is replaced. Only a starting application may do so: while an old and
            a new configuration are served side by side, each would otherwise keep killing the other's.

    Raises:
        StorageError: The job folders cannot be used.
        UnavailableError: No tracker started.
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
    raise UnavailableError("the job tracker does not start; see the Ray dashboard")


def release_jobs() -> None:
    """Releases the lease that the cluster's tracker holds, if there is one: the cluster is about to end."""
    try:
        tracker = ray.get_actor(NAME, namespace=NAMESPACE)
        ray.get(tracker.release_lease.remote(), timeout=_RELEASE_S)
    except Exception as error:  # a successor waits until the lease has expired
        logger.info("the lease of the jobs is not released: %r", error)


def _available() -> Mapping[str, float]:
    """Resources that are not reserved; empty if the cluster does not answer."""
    try:
        return dict(ray.available_resources())
    except Exception as error:
        logger.warning("the cluster does not report its free resources: %r", error)
        return {}
