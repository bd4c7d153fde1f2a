"""The application: every ``.bind()`` in the program, nothing else.

Ray Serve calls ``build`` with the ``args:`` of the serve config and validates them by its parameter's
type, so annotations in this file are not postponed.
"""

import re
from typing import Any

import ray
from ray import serve
from ray.serve import Application

from serve_app.deployments.encoder import Encoder
from serve_app.deployments.ingress import Ingress
from serve_app.deployments.reranker import Reranker
from serve_app.settings import DeploymentSettings, ModelSettings, Settings


def build(settings: Settings) -> Application:
    """The deployment graph: an encoder for each model, the rerankers, and the ingress in front of them."""
    encoders = {model.name: _with_model(Encoder, model, settings) for model in settings.models}
    rerankers = {model.name: _with_model(Reranker, model, settings) for model in settings.rerankers}
    ingress = serve.deployment()(Ingress).options(
        name="Ingress",
        ray_actor_options={"num_cpus": settings.ingress.num_cpus},
        graceful_shutdown_timeout_s=20,
        **_replicas(settings.ingress),
    )
    return ingress.bind(settings, encoders, rerankers)


def _with_model(kind: type, model: ModelSettings, settings: Settings) -> Application:
    gpus = _gpus(model)
    if not gpus and model.device == "auto":  # Ray would let it see GPUs that others have reserved
        model = model.model_copy(update={"device": "cpu"})
    deployment = serve.deployment()(kind).options(
        name=f"{kind.__name__}-" + re.sub(r"[^A-Za-z0-9._-]", "-", model.name),
        ray_actor_options={"num_cpus": model.num_cpus, "num_gpus": gpus},
        health_check_period_s=5,
        graceful_shutdown_timeout_s=20,
        **_replicas(model),
    )
    return deployment.bind(model, settings.models_dir)


def _replicas(deployment: DeploymentSettings) -> dict[str, Any]:
    """Serve's options; fixed or autoscaled, never both."""
    scaling: dict[str, Any] = (
        {"autoscaling_config": deployment.autoscaling_config}
        if deployment.autoscaling_config
        else {"num_replicas": deployment.num_replicas}
    )
    return {"max_ongoing_requests": deployment.max_ongoing_requests, **scaling}


def _gpus(model: ModelSettings) -> float:
    """GPUs of a replica; ``auto`` is a share where the cluster has any, so that one file serves both."""
    if model.num_gpus != "auto":
        return model.num_gpus
    if model.device == "cpu":
        return 0
    return model.gpu_share if ray.cluster_resources().get("GPU", 0) > 0 else 0
