"""The deployment graph that ``build`` makes, without starting Ray."""

from __future__ import annotations

from typing import Any

import pytest
from ray.serve import Application

from serve_app import app
from serve_app.settings import Settings


def deployments(monkeypatch: pytest.MonkeyPatch, gpus: float, **args: Any) -> dict[str, Any]:
    """The graph's deployments by name, in a cluster with so many GPUs."""
    monkeypatch.setattr(app.ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": gpus} if gpus else {"CPU": 2.0})
    ingress = app.build(Settings(**args))
    _, encoders, rerankers = ingress._bound_deployment.init_args
    found = [ingress, *encoders.values(), *rerankers.values()]
    assert all(isinstance(application, Application) for application in found)
    return {application._bound_deployment.name: application._bound_deployment for application in found}


@pytest.mark.parametrize(
    ("model", "gpus", "share"),
    [
        ({}, 0, 0),
        ({}, 4, 0.5),
        ({"gpu_share": 0.25}, 1, 0.25),
        ({"num_gpus": 1}, 0, 1),  # GPU nodes that join later
        ({"num_gpus": 0}, 4, 0),
        ({"device": "cpu"}, 4, 0),
    ],
)
def test_an_encoder_gets_the_gpus_that_its_setting_and_the_cluster_say(
    monkeypatch: pytest.MonkeyPatch, model: dict[str, Any], gpus: float, share: float
) -> None:
    found = deployments(monkeypatch, gpus, models=[{"name": "e5-a", **model}])
    assert found["Encoder-e5-a"].ray_actor_options["num_gpus"] == share
    assert not found["Ingress"].ray_actor_options.get("num_gpus")


@pytest.mark.parametrize(
    ("model", "gpus", "device"),
    [
        ({}, 1, "auto"),
        ({}, 0, "cpu"),  # a GPU that joins later is not its own
        ({"num_gpus": 0}, 1, "cpu"),
        ({"num_gpus": 0, "device": "cuda"}, 1, "cuda"),  # whoever says so
        ({"num_gpus": 1}, 0, "auto"),
    ],
)
def test_an_encoder_without_a_share_of_a_gpu_leaves_those_of_others_alone(
    monkeypatch: pytest.MonkeyPatch, model: dict[str, Any], gpus: float, device: str
) -> None:
    bound = deployments(monkeypatch, gpus, models=[{"name": "e5-a", **model}])["Encoder-e5-a"].init_args[0]
    assert (bound.name, bound.device) == ("e5-a", device)


def test_every_model_gets_an_encoder_of_its_own_with_its_own_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    scaling = {"min_replicas": 1, "max_replicas": 3}
    models = [
        {"name": "intfloat/multilingual-e5-large", "autoscaling_config": scaling, "num_cpus": 2},
        {"name": "e5-b", "num_replicas": 4, "max_ongoing_requests": 77},
    ]
    found = deployments(monkeypatch, 0, models=models, ingress={"num_replicas": 2, "num_cpus": 0.3})
    assert set(found) == {"Ingress", "Encoder-intfloat-multilingual-e5-large", "Encoder-e5-b"}
    large, small = found["Encoder-intfloat-multilingual-e5-large"], found["Encoder-e5-b"]
    assert large._deployment_config.autoscaling_config.max_replicas == 3
    assert large.ray_actor_options["num_cpus"] == 2
    assert (small.num_replicas, small.max_ongoing_requests) == (4, 77)
    assert (found["Ingress"].num_replicas, found["Ingress"].ray_actor_options["num_cpus"]) == (2, 0.3)


def test_a_reranker_is_a_deployment_of_its_own_with_its_own_share(monkeypatch: pytest.MonkeyPatch) -> None:
    found = deployments(
        monkeypatch,
        1,
        models=[{"name": "bge-m3", "gpu_share": 0.5}],
        rerankers=[{"name": "bge-m3", "gpu_share": 0.25, "num_replicas": 2}],
    )
    assert set(found) == {"Ingress", "Encoder-bge-m3", "Reranker-bge-m3"}
    assert found["Encoder-bge-m3"].ray_actor_options["num_gpus"] == 0.5
    reranker = found["Reranker-bge-m3"]
    assert (reranker.ray_actor_options["num_gpus"], reranker.num_replicas) == (0.25, 2)
