"""The jobs behind the routes: a client of the tracker that survives its restarts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import ray
from ray.exceptions import RayActorError, RayTaskError

from serve_app.api.jobs_protocol import ParsedFineTune
from serve_app.domain.errors import ConflictError, ServiceError, UnavailableError
from serve_app.inference.training_spec_resolver import BaseModels, check_feasible, resolve_spec, training_data
from serve_app.jobs.job_policy import JobPolicy
from serve_app.jobs.job_record import JobRecord
from serve_app.jobs.job_service import JobService
from serve_app.jobs.tracker import TrackerConfig, ensure_tracker
from serve_app.jobs.upload_store import UploadStore
from serve_app.settings.model_settings import ModelSettings
from serve_app.settings.training_settings import TrainingSettings

logger = logging.getLogger(__name__)

_CALL_TIMEOUT_S = 30.0  # a cancellation takes up to ten
_TRIES = 3
_RETRY_S = 5.0


P = ParamSpec("P")
R = TypeVar("R")


def _forward(
    method: Callable[Concatenate[JobService, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[TrackerClient, P], Coroutine[Any, Any, R]]:
    """A method of the client that calls the tracker's method of the same name, with the same parameters and result."""

    @wraps(method)
    async def forwarded(client: TrackerClient, /, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = await client.call(method.__name__, *args, **kwargs)
        return result

    return forwarded


class TrackerClient:
    """Implements ``api.jobs_protocol.JobsProtocol`` by calls to the tracker; lives in an ingress replica."""

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
        """Prepares; ``start`` or the first call connects.

        Args:
            settings: Settings of fine-tuning.
            models: The configured models, the default one first.
            models_dir: Where results appear.
            rerankers: Names of the models that score pairs, which cannot be tuned.
            aliases: The model of each alias; no result can be named like one.
            connect: Returns the tracker's handle, as ``ensure_tracker`` does.
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
                await asyncio.sleep(_RETRY_S)

    async def submit(self, request: ParsedFineTune) -> JobRecord:
        """See ``JobsProtocol.submit``."""
        if (name := request.model_name) in self._aliases:
            raise ConflictError(
                f"model_name: {name!r} is an alias of the model {self._aliases[name]!r}; choose another"
            )
        base = await asyncio.to_thread(self._bases.find, request.base_model)
        check_feasible(request, base)
        gpus = 0.0
        if self._settings.gpus_per_worker == "auto":
            gpus = (await asyncio.to_thread(ray.cluster_resources)).get("GPU", 0.0)
        spec = resolve_spec(request, base, self._settings, self._models_dir, gpus=gpus)
        data = await asyncio.to_thread(training_data, request)
        return await self._store(
            spec,
            data,
            accepted=len(request.examples) + len(request.held_out),
            ignored=request.ignored,
            has_generated_name=request.has_generated_name,
        )

    _store = _forward(JobService.submit)
    get = _forward(JobService.get)
    specs = _forward(JobService.specs)
    page = _forward(JobService.page)
    live = _forward(JobService.live)
    cancel = _forward(JobService.cancel)
    delete = _forward(JobService.delete)
    events = _forward(JobService.events)
    logs = _forward(JobService.logs)
    loss_curve = _forward(JobService.loss_curve)

    async def call(self, method: str, *args: object, **more: object) -> Any:
        """Calls a method of the tracker, again if the tracker dies meanwhile: every method may be repeated.

        A deletion that was done before the tracker died is then answered with ``JobNotFoundError``.

        Raises:
            ServiceError: The tracker raised it.
            UnavailableError: The tracker does not answer in time.
        """
        try:
            async with asyncio.timeout(_CALL_TIMEOUT_S):
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
