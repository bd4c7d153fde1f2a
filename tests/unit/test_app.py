"""The deployment graph that ``build`` makes, without starting Ray."""

from __future__ import annotations

from typing import Any

import pytest
from ray.serve import Application

from serve_app import app
from serve_app.settings.service_settings import Settings


def deployments(monkeypatch: pytest.MonkeyPatch, gpus: float, *, nodes: int = 1, **args: Any) -> dict[str, Any]:
    """The graph's deployments by name, in a cluster of such nodes: two CPUs each, and so many GPUs."""
    has = {"CPU": 2.0, "GPU": gpus} if gpus else {"CPU": 2.0}
    monkeypatch.setattr(app.ray, "cluster_resources", lambda: {name: nodes * amount for name, amount in has.items()})
    gone = {"Alive": False, "Resources": {"CPU": 64.0}}
    monkeypatch.setattr(app.ray, "nodes", lambda: [gone, *({"Alive": True, "Resources": has} for _ in range(nodes))])
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
        ({}, 1, "cuda"),
        ({}, 0, "cpu"),  # a GPU that joins later is not its own
        ({"num_gpus": 0}, 1, "cpu"),
        ({"num_gpus": 0, "device": "cuda"}, 1, "cuda"),  # as configured
        ({"num_gpus": 1}, 0, "cuda"),
        ({"device": "cuda:1"}, 2, "cuda:1"),
    ],
)
def test_an_encoder_computes_on_its_share_of_a_gpu_and_leaves_those_of_others_alone(
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


def resources(deployment: Any) -> dict[str, float]:
    return dict(deployment.ray_actor_options.get("resources") or {})


def test_on_one_node_several_replicas_start_and_a_redeploy_starts_new_ones_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for deployment in deployments(
        monkeypatch,
        0,
        models=[{"name": "e5-a", "num_replicas": 2}],
        rerankers=[{"num_replicas": 5}],
        ingress={"num_replicas": 2},
    ).values():
        assert resources(deployment) == {}
        assert deployment._replica_config.max_replicas_per_node is None
        assert deployment._deployment_config.max_surge_percent == (25 if deployment.num_replicas == 5 else 100)


def test_a_full_machine_warns_that_a_redeploy_pauses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "print_to_terminal", print)
    models = [{"name": "e5-a", "num_cpus": 1.1}, {"name": "e5-b", "num_cpus": 0.4}]
    found = deployments(monkeypatch, 0, models=models)
    surges = {name: deployment._deployment_config.max_surge_percent for name, deployment in found.items()}
    assert surges == {"Ingress": 100, "Encoder-e5-a": 0, "Encoder-e5-b": 100}
    assert capsys.readouterr().out == (
        "WARNING Encoder-e5-a: no node has room for one more replica (1.1 CPU); a redeploy stops a replica before the "
        "new one starts, and the service pauses for as long as a model loads meanwhile. Add a node, or reserve less\n"
    )


def test_on_several_nodes_one_holds_half_of_the_replicas_and_each_redeploy_counts_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = [{"name": "e5-a", "num_replicas": 2}, {"name": "e5-b", "num_replicas": 5}]
    args = {"models": models, "ingress": {"num_replicas": 2}, "rerankers": [{"num_replicas": 1}]}
    before = deployments(monkeypatch, 0, nodes=2, **args)
    shares = {name: list(resources(deployment).values()) for name, deployment in before.items()}
    assert shares == {"Ingress": [1.0], "Encoder-e5-a": [1.0], "Encoder-e5-b": [1 / 3], "Reranker-BAAI-bge-m3": []}
    again = deployments(monkeypatch, 0, nodes=2, **args)
    after = deployments(monkeypatch, 0, nodes=2, **args, limits={"max_items": 7})
    assert resources(again["Ingress"]) == resources(before["Ingress"])
    assert resources(after["Ingress"]).keys() != resources(before["Ingress"]).keys()
    names = [name for deployment in before.values() for name in resources(deployment)]
    assert len(set(names)) == 3
    assert all(name.startswith("node:__internal_implicit_resource_retrieval:") for name in names)


@pytest.mark.parametrize(
    ("ingress", "share", "surge", "warning"),
    [
        ({"max_replicas_per_node": None}, [], 100, ""),
        ({"max_replicas_per_node": 2, "max_surge_percent": 0}, [0.5], 0, ""),
        ({"max_surge_percent": 50, "num_cpus": 2}, [1.0], 50, "a redeploy waits for room, and the old replicas serve"),
        ({"num_cpus": 2}, [1.0], 0, "stops a replica before the new one starts, and the others serve alone meanwhile"),
        ({"num_replicas": 5, "max_replicas_per_node": 1}, [1.0], 25, "hold 2 of them"),
    ],
)
def test_numbers_are_taken_as_they_are_and_the_start_log_states_the_effect(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ingress: dict[str, Any],
    share: list[float],
    surge: int,
    warning: str,
) -> None:
    monkeypatch.setattr(app, "print_to_terminal", print)
    model = {"name": "e5-a", "num_cpus": 0}
    found = deployments(monkeypatch, 0, nodes=2, models=[model], ingress={"num_replicas": 2, **ingress})["Ingress"]
    assert list(resources(found).values()) == share
    assert found._deployment_config.max_surge_percent == surge
    said = capsys.readouterr().out
    assert warning in said
    assert bool(warning) == said.startswith("WARNING Ingress: ")
