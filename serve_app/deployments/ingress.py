"""The ingress: HTTP requests in, handle calls out. It needs no GPU and never imports torch."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TypeVar

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from serve_app.api.application import create_app
from serve_app.api.middleware.api_key_auth import Access
from serve_app.api.middleware.drain import DrainState
from serve_app.api.model_states import Capacity
from serve_app.deployments.banner import announce
from serve_app.deployments.encoder import Encoder
from serve_app.deployments.graceful_stop import drain_on_stop
from serve_app.deployments.http_address import host, is_loopback
from serve_app.deployments.key_watcher import KeyWatcher
from serve_app.deployments.metrics import IngressMetrics
from serve_app.deployments.operator_log import log_startup_failure, start_log_flush
from serve_app.deployments.reranker import Reranker
from serve_app.deployments.serve_handle import ServeHandle, coalesce_small
from serve_app.deployments.shared_rates import SharedRates
from serve_app.deployments.tracker_client import TrackerClient
from serve_app.domain.background import BackgroundTasks
from serve_app.domain.embeddings import DENSE
from serve_app.domain.executors import LIST_THREADS, run_io
from serve_app.inference.encoder_client import EncoderClient
from serve_app.inference.inference_service import InferenceService
from serve_app.inference.model_registry import ModelRegistry, require_free_aliases
from serve_app.inference.replica_caller import ReplicaCaller
from serve_app.inference.reranking import RerankClient
from serve_app.inference.served_model import ServedModel
from serve_app.models.model_source import find_model
from serve_app.settings.model_settings import ModelSettings
from serve_app.settings.service_settings import Settings

_WAIT_FOR_REPLICAS_S = 10.0

C = TypeVar("C", bound=ReplicaCaller)


@serve.ingress()
class Ingress:
    """One HTTP replica; Ray Serve starts as many as configured."""

    async def __init__(  # type: ignore[misc]
        self,
        settings: Settings,
        encoders: Mapping[str, DeploymentHandle[Encoder]],
        rerankers: Mapping[str, DeploymentHandle[Reranker]],
    ) -> None:
        """Reads the tokenizers and finds the replicas; waits at most 10 s for those that are still loading.

        Args:
            settings: All settings.
            encoders: Handle of each model's encoder, by model name.
            rerankers: Handle of each reranker, by model name.

        Raises:
            ModelLoadError: A model's card or tokenizer cannot be read.
            ConfigurationError: The API keys cannot be read.
        """
        self._settings = settings
        with log_startup_failure("the ingress", is_last=True):
            self._keys = KeyWatcher(settings.security) if settings.security.wants_keys else None
            require_free_aliases(settings.aliases, settings.models_dir)
            clients = {name: EncoderClient(ServeHandle(handle), coalesce_small) for name, handle in encoders.items()}
            callers = {name: ReplicaCaller(ServeHandle(handle)) for name, handle in rerankers.items()}
            models = {model.name: self._served(model, clients[model.name]) for model in settings.models}
            scorers = {model.name: self._served(model, callers[model.name]) for model in settings.rerankers}
        self._tasks = tasks = BackgroundTasks()
        every: list[ReplicaCaller] = [*clients.values(), *callers.values()]
        await asyncio.gather(*(caller.start(tasks, wait_s=_WAIT_FOR_REPLICAS_S) for caller in every))
        self._metrics = IngressMetrics()
        self._metrics.start(tasks)
        embedders = ModelRegistry(models, settings.models_dir, settings.aliases)
        rankers = RerankClient(
            ModelRegistry(scorers, settings.models_dir, settings.aliases),
            embedders,
            settings.limits.max_request_tokens,
            self._metrics,
        )
        capacity = Capacity(settings.ingress.max_ongoing_requests, LIST_THREADS)
        self._service = InferenceService(
            embedders, rankers, settings.models_dir, settings.limits, self._metrics, capacity
        )
        self._jobs = TrackerClient(
            settings.training,
            settings.models,
            settings.models_dir,
            rerankers=[m.name for m in settings.rerankers],
            aliases=settings.aliases,
        )
        self._is_private = self._keys is None and is_loopback(await run_io(host))
        tasks.start("connection to the job tracker", self._jobs.start(), may_end=True)
        self._drain = DrainState()
        tasks.start("watch for a stop of the service", drain_on_stop(self._drain), may_end=True)
        start_log_flush(tasks)
        if self._keys is not None:
            self._keys.watch(tasks)
        if serve.get_replica_context().rank.rank == 0:
            tasks.start("banner", announce(self._service, needs_key=self._keys is not None), may_end=True)

    async def check_health(self) -> None:
        """Called by Ray Serve; raises if this replica must be replaced."""
        self._tasks.check()

    def _served(self, model: ModelSettings, caller: C) -> ServedModel[C]:
        source = find_model(model.name, self._settings.models_dir, family=model.family, weights=False)
        capabilities = source.profile.capabilities
        return ServedModel(
            source,
            capabilities & DENSE if model.dense_only else capabilities,
            caller,
            max_backlog_tokens=model.batching.max_backlog_tokens,
            batch_tokens=lambda device: model.batching.for_device(device)[0],
        )

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Called by Ray Serve after the constructor."""
        return create_app(
            self._service,
            self._jobs,
            self._settings.limits,
            self._settings.training.limits,
            count_status=self._metrics.count_status,
            access=self._access(),
            cors_origins=self._settings.security.cors_origins,
            hosts=self._settings.security.allowed_hosts if self._is_private else None,
            drain=self._drain,
        )

    def _access(self) -> Access | None:
        if self._keys is None:
            return None
        rates = SharedRates()
        if any(key.is_limited for key in self._keys.ring().keys):
            rates.start()
        return Access(self._keys.ring, rates)
