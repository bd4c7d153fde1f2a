"""The jobs behind the routes: a client of the tracker that does not mind if that is restarted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from serve_app.api.jobs_service import ParsedFineTune
from serve_app.domain.errors import ConflictError, ServiceError, UnavailableError
from serve_app.inference.training_spec_resolver import BaseModels, check_feasible, data_of, spec_of
from serve_app.jobs.job_events import JobEvent
from serve_app.jobs.job_reconciler import JobPolicy
from serve_app.jobs.job_record import JobRecord
from serve_app.jobs.tracker import TrackerConfig, ensure_tracker
from serve_app.jobs.training_spec import TrainingSpec
from serve_app.jobs.upload_store import UploadStore
from serve_app.settings.model_settings import ModelSettings
from serve_app.settings.training_settings import TrainingSettings

logger = logging.getLogger(__name__)

_ANSWER_S = 30.0  # a cancellation takes up to ten
_TRIES = 3
_AGAIN_S = 5.0


class TrackerClient:
    """Implements ``api.jobs_gateway.JobsProtocol`` on the tracker; lives in an ingress replica."""

    def __init__(
        self,
        settings: TrainingSettings,
        models: Sequence[ModelSettings],
        models_dir: Path,
        *,
        rerankers: Collection[str] = (),
        aliases: Mapping[str, str] | None = None,
        connect: Callable[..., Any] = ensure_tracker,
    ) -> None:
        """Prepares; ``start`` or the first question connects.

        Args:
            settings: Of fine-tuning.
            models: The configured models, the default one first.
            models_dir: Where results appear.
            rerankers: Names of the models that score pairs, which cannot be tuned.
            aliases: The model of each alias; no result can be named like one.
            connect: Makes the tracker's handle, as ``ensure_tracker`` does.
        """
        limits = settings.limits
        self.uploads = UploadStore(settings.jobs_dir, max_files=limits.max_files, max_bytes=limits.max_files_bytes)
        self._settings = settings
        self._bases = BaseModels(models, models_dir, rerankers, aliases)
        self._aliases = aliases or {}
        self._models_dir = models_dir
        policy = JobPolicy(settings.max_concurrent_jobs, settings.max_waiting_jobs)
        self._config = TrackerConfig(settings.jobs_dir, policy, env=settings.env)
        self._connect = connect
        self._tracker: Any = None

    async def start(self) -> None:
        """Makes sure that there is a tracker, however long it takes: after a restart it has jobs to resume."""
        while True:
            try:
                self._tracker = await self._connect(self._config)
                return
            except Exception as error:
                reason = error.message if isinstance(error, ServiceError) else repr(error)
                logger.error("fine-tuning is not available yet: %s", reason)
                await asyncio.sleep(_AGAIN_S)

    async def submit(self, order: ParsedFineTune) -> JobRecord:
        """See ``JobsProtocol.submit``."""
        if (name := order.model_name) in self._aliases:
            raise ConflictError(
                f"model_name: {name!r} is an alias of the model {self._aliases[name]!r}; choose another"
            )
        base = await asyncio.to_thread(self._bases.find, order.base_model)
        check_feasible(order, base)
        gpus = 0.0
        if self._settings.gpus_per_worker == "auto":
            gpus = (await asyncio.to_thread(ray.cluster_resources)).get("GPU", 0.0)
        spec = spec_of(order, base, self._settings, self._models_dir, gpus=gpus)
        data = await asyncio.to_thread(data_of, order)
        record: JobRecord = await self._ask(
            "submit",
            spec,
            data,
            accepted=len(order.examples) + len(order.held_out),
            ignored=order.ignored,
            has_generated_name=order.has_generated_name,
        )
        return record

    async def get(self, job_id: str) -> JobRecord:
        """See ``JobsProtocol.get``."""
        record: JobRecord = await self._ask("get", job_id)
        return record

    async def specs(self, job_ids: Sequence[str]) -> Mapping[str, TrainingSpec]:
        """See ``JobsProtocol.specs``."""
        specs: Mapping[str, TrainingSpec] = await self._ask("specs", job_ids)
        return specs

    async def page(self, *, limit: int, after: str | None) -> Sequence[JobRecord]:
        """See ``JobsProtocol.page``."""
        records: Sequence[JobRecord] = await self._ask("page", limit=limit, after=after)
        return records

    async def live(self) -> Sequence[JobRecord]:
        """See ``JobsProtocol.live``."""
        records: Sequence[JobRecord] = await self._ask("live")
        return records

    async def cancel(self, job_id: str) -> JobRecord:
        """See ``JobsProtocol.cancel``."""
        record: JobRecord = await self._ask("cancel", job_id)
        return record

    async def delete(self, job_id: str) -> None:
        """See ``JobsProtocol.delete``."""
        await self._ask("delete", job_id)

    async def events(self, job_id: str, *, after: int) -> Sequence[JobEvent]:
        """See ``JobsProtocol.events``."""
        events: Sequence[JobEvent] = await self._ask("events", job_id, after=after)
        return events

    async def logs(self, job_id: str) -> str:
        """See ``JobsProtocol.logs``."""
        text: str = await self._ask("logs", job_id)
        return text

    async def loss_curve(self, job_id: str) -> str | None:
        """See ``JobsProtocol.loss_curve``."""
        picture: str | None = await self._ask("loss_curve", job_id)
        return picture

    async def _ask(self, method: str, *args: object, **more: object) -> Any:
        """Asks the tracker; every question may be asked twice, so it is, if the tracker dies under it.

        A deletion that was done is then answered as one of a job that is not there.
        """
        try:
            async with asyncio.timeout(_ANSWER_S):
                for _ in range(_TRIES):
                    try:
                        if self._tracker is None:
                            self._tracker = await self._connect(self._config, replaces=False)
                        return await getattr(self._tracker, method).remote(*args, **more)
                    except RayActorError as error:
                        logger.warning("the job tracker died (%s)", type(error).__name__)
                        self._tracker = None
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, ServiceError) else error from None
        except TimeoutError:
            pass
        raise UnavailableError("the job tracker does not answer; it may be restarting")
