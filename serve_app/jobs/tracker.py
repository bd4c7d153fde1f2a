"""The actor that owns all jobs of a cluster: one writer, known by name, there again after any crash.

A shell around ``Jobs``. It is detached, so it outlives the application; and all it knows is in the job folders, so it
may be killed at any time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError

from serve_app import __version__
from serve_app.domain.errors import UnavailableError
from serve_app.domain.fine_tuning import CLUSTER_VARIABLE, TrainingSpec
from serve_app.domain.job_notes import JobNote
from serve_app.domain.jobs import JobRecord
from serve_app.jobs.jobs import Jobs
from serve_app.jobs.store import JobStore, TrainingData
from serve_app.jobs.submit import TRAINING, RaySubmitter
from serve_app.jobs.supervision import Rules

logger = logging.getLogger(__name__)

NAME, NAMESPACE = "JobTracker", "retrieval"
_LOOK_S = 1.0
_REPLACE_TRIES = 50
_REPLACE_PAUSE_S = 0.2


@dataclass(frozen=True)
class TrackerConfig:
    """What a tracker is told at its creation.

    Attributes:
        jobs_dir: Folder of the job folders, on a disk that all nodes share.
        rules: How jobs are treated.
        command: Program that trains the job folder which is its last argument.
        env: Environment variables of the training.
        version: Of the code; a tracker of another version is replaced.
    """

    jobs_dir: Path
    rules: Rules = field(default_factory=Rules)
    command: Sequence[str] = tuple(TRAINING)
    env: Mapping[str, str] = field(default_factory=dict)
    version: str = __version__


class JobTracker:
    """The actor. Its methods are those of ``Jobs``."""

    async def __init__(self, config: TrackerConfig) -> None:  # type: ignore[misc]
        """Reads all job folders and begins to look after them.

        Raises:
            StorageError: The folders can not be read.
        """
        self._config = config
        env = {**config.env, CLUSTER_VARIABLE: ray.get_runtime_context().gcs_address}
        submitter = RaySubmitter(command=config.command, env=env)
        self._jobs = Jobs(JobStore(config.jobs_dir), submitter, config.rules, resources=_available)
        self._looking = asyncio.get_running_loop().create_task(self._look())

    async def config(self) -> TrackerConfig:
        """What it was told at its creation."""
        return self._config

    async def submit(
        self, spec: TrainingSpec, data: TrainingData, *, accepted: int, ignored: int, any_name: bool = False
    ) -> JobRecord:
        """See ``Jobs.submit``."""
        return await self._jobs.submit(spec, data, accepted=accepted, ignored=ignored, any_name=any_name)

    async def get(self, job_id: str) -> JobRecord:
        """See ``Jobs.get``."""
        return await self._jobs.get(job_id)

    async def specs(self, job_ids: Sequence[str]) -> Mapping[str, TrainingSpec]:
        """See ``Jobs.specs``."""
        return await self._jobs.specs(job_ids)

    async def page(self, *, limit: int, after: str | None = None) -> Sequence[JobRecord]:
        """See ``Jobs.page``."""
        return await self._jobs.page(limit=limit, after=after)

    async def cancel(self, job_id: str) -> JobRecord:
        """See ``Jobs.cancel``."""
        return await self._jobs.cancel(job_id)

    async def delete(self, job_id: str) -> None:
        """See ``Jobs.delete``."""
        await self._jobs.delete(job_id)

    async def notes(self, job_id: str, *, after: int = 0) -> Sequence[JobNote]:
        """See ``Jobs.notes``."""
        return await self._jobs.notes(job_id, after=after)

    async def logs(self, job_id: str) -> str:
        """See ``Jobs.logs``."""
        return await self._jobs.logs(job_id)

    async def loss_curve(self, job_id: str) -> str | None:
        """See ``Jobs.loss_curve``."""
        return await self._jobs.loss_curve(job_id)

    async def _look(self) -> None:
        while True:
            try:
                await self._jobs.look()
            except Exception:
                logger.exception("the jobs could not be looked after")
            await asyncio.sleep(_LOOK_S)


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


def _available() -> Mapping[str, float]:
    """What nobody has reserved; nothing if the cluster does not tell."""
    try:
        return dict(ray.available_resources())
    except Exception as error:
        logger.warning("the cluster does not tell its free resources: %r", error)
        return {}
