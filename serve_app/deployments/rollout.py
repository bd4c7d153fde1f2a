"""Options by which Ray Serve places the replicas of a service and replaces them in a redeploy.

Serve's own ``max_replicas_per_node`` counts old and new replicas together. On two nodes with a replica each, new
replicas that start before the old ones stop would find no node, and the redeploy would wait for ever. So the limit is
set as Serve sets it, through a resource that every node has once, but under a name that changes with the settings: the
replicas of a redeploy are counted separately from those that they replace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray._raylet import IMPLICIT_RESOURCE_PREFIX  # type: ignore[attr-defined]  # no public way exists in Ray 2.60

from serve_app.domain.placement import Demand, Node, capacity, spread, surge_percent, without_room
from serve_app.settings.deployment_settings import DeploymentSettings
from serve_app.settings.service_settings import Settings


@dataclass(frozen=True)
class Part:
    """A deployment of the service.

    Attributes:
        name: Its name.
        settings: Its settings.
        gpus: GPUs of each replica.
    """

    name: str
    settings: DeploymentSettings
    gpus: float = 0.0

    def demand(self, nodes: Sequence[Node]) -> Demand:
        """The resources that it needs."""
        asked = self.settings
        free = Demand(self.name, asked.min_replicas, asked.max_replicas, asked.num_cpus, self.gpus)
        limit = asked.max_replicas_per_node
        return free.limited(spread(free, nodes) if limit == "auto" else limit)


@dataclass(frozen=True)
class Rollout:
    """Options for Serve and warnings for the operator.

    Attributes:
        options: Options of each deployment by name.
        warnings: Sentences for the start log.
    """

    options: Mapping[str, Mapping[str, Any]]
    warnings: Sequence[str]


def plan_rollout(settings: Settings, parts: Sequence[Part], nodes: Sequence[Node]) -> Rollout:
    """Chooses surge and placement of every deployment for the nodes of the cluster."""
    generation = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:12]
    demands = {part.name: part.demand(nodes) for part in parts}
    full = without_room(list(demands.values()), nodes)
    options, warnings = {}, list[str]()
    for part in parts:
        demand = demands[part.name]
        surge = _surge(part, demand, has_room=part.name not in full)
        options[part.name] = {
            "max_surge_percent": surge,
            "ray_actor_options": _actor_options(demand, generation),
            "max_ongoing_requests": part.settings.max_ongoing_requests,
            **_scaling(part.settings),
        }
        warnings += _warnings(demand, surge, nodes, has_room=part.name not in full)
    return Rollout(options, warnings)


def alive_nodes() -> list[Node]:
    """The nodes of the cluster with their total resources."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in resources]


def _surge(part: Part, demand: Demand, *, has_room: bool) -> int:
    asked = part.settings.max_surge_percent
    return asked if asked != "auto" else surge_percent(demand) if has_room else 0


def _actor_options(demand: Demand, generation: str) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": demand.cpus, "num_gpus": demand.gpus}
    if demand.max_per_node is not None:
        counted = f"{IMPLICIT_RESOURCE_PREFIX}retrieval:{demand.name}:{generation}"
        options["resources"] = {counted: 1.0 / demand.max_per_node}
    return options


def _scaling(settings: DeploymentSettings) -> dict[str, Any]:
    """Fixed or autoscaled, never both."""
    if settings.autoscaling_config:
        return {"autoscaling_config": settings.autoscaling_config}
    return {"num_replicas": settings.num_replicas}


def _warnings(demand: Demand, surge: int, nodes: Sequence[Node], *, has_room: bool) -> Iterable[str]:
    if demand.max_per_node is not None and (places := capacity(demand, nodes)) < demand.replicas:
        yield (
            f"{demand.name}: {demand.replicas} replicas, but the nodes of the cluster hold {places} of them "
            f"(max_replicas_per_node is {demand.max_per_node}); the others wait for more nodes"
        )
    elif not has_room and surge:
        yield (
            f"{demand.name}: no node has room for one more replica{_size(demand)}; a redeploy waits for room, and the "
            f"old replicas serve until then. Add a node, or set max_surge_percent: 0"
        )
    elif not has_room:
        alone = "the service pauses for as long as a model loads" if demand.replicas < 2 else "the others serve alone"
        yield (
            f"{demand.name}: no node has room for one more replica{_size(demand)}; a redeploy stops a replica before "
            f"the new one starts, and {alone} meanwhile. Add a node, or reserve less"
        )


def _size(demand: Demand) -> str:
    gpus = f" and {demand.gpus:g} GPU" if demand.gpus else ""
    return f" ({demand.cpus:g} CPU{gpus})"
