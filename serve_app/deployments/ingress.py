"""The ingress: HTTP in, handle calls out. CPU only; it never imports torch."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from serve_app.api.application import create_app
from serve_app.deployments.banner import announce
from serve_app.deployments.client import EncoderClient
from serve_app.deployments.console import keep_log_fresh, telling_why
from serve_app.deployments.encoder import Encoder
from serve_app.deployments.gateway import ServedModel, ServeGateway
from serve_app.deployments.metrics import IngressMetrics
from serve_app.models.source import find_model
from serve_app.settings import Settings

_WAIT_FOR_ENCODERS_S = 10.0


@serve.ingress()
class Ingress:
    """One HTTP replica; Ray Serve starts as many as configured."""

    async def __init__(  # type: ignore[misc]
        self, settings: Settings, encoders: Mapping[str, DeploymentHandle[Encoder]]
    ) -> None:
        """Reads the tokenizers and finds the encoders; those that are still loading are not waited for long.

        Args:
            settings: All settings.
            encoders: Handle of each model's encoder, by model name.

        Raises:
            ModelLoadError: A model's card or tokenizer can not be read.
        """
        self._settings = settings
        models = {}
        with telling_why("the ingress"):
            for model in settings.models:
                source = find_model(model.name, settings.models_dir, family=model.family, weights=False)
                models[model.name] = ServedModel(source, EncoderClient(encoders[model.name]))
        await asyncio.gather(*(model.client.start(wait_s=_WAIT_FOR_ENCODERS_S) for model in models.values()))
        self._metrics = IngressMetrics()
        self._gateway = ServeGateway(models, self._metrics)
        loop = asyncio.get_running_loop()
        self._log_keeper = loop.create_task(keep_log_fresh())
        if serve.get_replica_context().rank.rank == 0:
            self._announcement = loop.create_task(announce(self._gateway))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Called by Ray Serve after the constructor."""
        return create_app(self._gateway, self._settings.limits, count_status=self._metrics.count_status)
