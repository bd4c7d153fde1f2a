"""The application: every ``.bind()`` in the program, nothing else.

Ray Serve calls ``build`` with the ``args:`` of the serve config and validates them by its parameter's
type, so annotations in this file are not postponed.
"""

import re
from collections.abc import Mapping
from typing import Any

import ray
from ray import serve
from ray.serve import Application

from serve_app.deployments.encoder import Encoder
from serve_app.deployments.ingress import Ingress
from serve_app.deployments.operator_log import print_to_terminal
from serve_app.deployments.reranker import Reranker
from serve_app.deployments.rollout import Part, alive_nodes, plan_rollout
from serve_app.settings.model_settings import ModelSettings
from serve_app.settings.service_settings import Settings


def build(settings: Settings) -> Application:
    """The deployment graph: an encoder for each model, the rerankers, and the ingress that calls them."""
    models = {_name(Encoder, model): model for model in settings.models}
    models |= {_name(Reranker, model): model for model in settings.rerankers}
    parts = [Part("Ingress", settings.ingress), *(Part(name, model, _gpus(model)) for name, model in models.items())]
    rollout = plan_rollout(settings, parts, alive_nodes())
    for warning in rollout.warnings:
        print_to_terminal(f"WARNING {warning}")
    encoders = {model.name: _with_model(Encoder, model, settings, rollout.options) for model in settings.models}
    rerankers = {model.name: _with_model(Reranker, model, settings, rollout.options) for model in settings.rerankers}
    ingress = serve.deployment()(Ingress).options(
        name="Ingress", graceful_shutdown_timeout_s=20, **rollout.options["Ingress"]
    )
    return ingress.bind(settings, encoders, rerankers)


def _with_model(
    kind: type, model: ModelSettings, settings: Settings, options: Mapping[str, Mapping[str, Any]]
) -> Application:
    name = _name(kind, model)
    if model.device == "auto":
        # with a share of a GPU it must not fall back to the CPU; without one, Ray would show it those of other replicas
        model = model.model_copy(update={"device": "cuda" if _gpus(model) else "cpu"})
    deployment = serve.deployment()(kind).options(
        name=name, health_check_period_s=5, graceful_shutdown_timeout_s=20, **options[name]
    )
    return deployment.bind(model, settings.models_dir)


def _name(kind: type, model: ModelSettings) -> str:
    return f"{kind.__name__}-" + re.sub(r"[^A-Za-z0-9._-]", "-", model.name)


def _gpus(model: ModelSettings) -> float:
    """GPUs of a replica; ``auto`` is a share where the cluster has any, so that one file serves both."""
    if model.num_gpus != "auto":
        return model.num_gpus
    if model.device == "cpu":
        return 0
    return model.gpu_share if ray.cluster_resources().get("GPU", 0) > 0 else 0
