"""Placement of a service's replicas: replicas of a deployment on one node, and room for a redeploy.

A redeploy replaces every replica. Where a node has room for one more, the new replica starts first (surge); else
the old one has to stop first, and a deployment with one replica pauses for as long as its model loads. Pure
arithmetic on what nodes have and replicas reserve; memory is not part of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

_ROUNDING = 1e-6
_FEW_REPLICAS = 2  # up to so many are all replaced at once, more in steps
_STEP_PERCENT = 25


@dataclass(frozen=True)
class Node:
    """Total resources of a node of the cluster."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Demand:
    """Resources that a deployment needs.

    Attributes:
        name: The deployment's name.
        replicas: Smallest number of replicas.
        max_replicas: Largest number of replicas.
        cpus: CPUs that a replica reserves.
        gpus: GPUs that a replica reserves; a fraction is a share of one GPU.
        max_per_node: Replicas that one node may hold; None for any number.
    """

    name: str
    replicas: int
    max_replicas: int
    cpus: float
    gpus: float = 0.0
    max_per_node: int | None = None

    def limited(self, max_per_node: int | None) -> Demand:
        """A copy with another ``max_per_node``."""
        return replace(self, max_per_node=max_per_node)


def spread(demand: Demand, nodes: Iterable[Node]) -> int | None:
    """The replicas that one node may hold so that its death leaves half of them; None where there is nothing to spread.

    Where the number of replicas may grow, a node may hold more than that if the largest number has no room otherwise.
    """
    fitting = sum(_Room(node).takes(demand) for node in nodes)
    if fitting < 2 or demand.replicas < 2:
        return None
    half, even = math.ceil(demand.replicas / 2), math.ceil(demand.max_replicas / fitting)
    return half if demand.max_replicas == demand.replicas else max(half, even)


def capacity(demand: Demand, nodes: Iterable[Node]) -> int:
    """Replicas that the nodes would hold if nothing else ran on them, up to as many as there may be."""
    return sum(
        min(demand.max_replicas, demand.max_per_node or demand.max_replicas, _Room(n).fits(demand)) for n in nodes
    )


def surge_percent(demand: Demand) -> int:
    """Replicas that a redeploy starts before it stops old ones, in percent of those that run, where there is room."""
    return 100 if demand.replicas <= _FEW_REPLICAS else _STEP_PERCENT


def without_room(demands: Sequence[Demand], nodes: Iterable[Node]) -> frozenset[str]:
    """Deployments for which no node can hold one more replica while all others run."""
    rooms = [_Room(node) for node in nodes]
    for demand in sorted(demands, key=lambda demand: (demand.gpus, demand.cpus), reverse=True):
        for _ in range(demand.replicas):
            takers = [room for room in rooms if room.takes(demand) and room.may_hold(demand)]
            if not takers:  # it waits for another node
                break
            max(takers, key=lambda room: room.free).put(demand)
    return frozenset(demand.name for demand in demands if not any(room.takes(demand) for room in rooms))


class _Room:
    """The remaining resources of a node."""

    def __init__(self, node: Node) -> None:
        self._cpus = node.cpus
        self._gpus = [1.0] * int(node.gpus)
        self._held: Counter[str] = Counter()

    @property
    def free(self) -> tuple[float, float]:
        return sum(self._gpus), self._cpus

    def takes(self, demand: Demand) -> bool:
        return demand.cpus <= self._cpus + _ROUNDING and self._gpus_for(demand) is not None

    def may_hold(self, demand: Demand) -> bool:
        return demand.max_per_node is None or self._held[demand.name] < demand.max_per_node

    def fits(self, demand: Demand) -> int:
        """Number of its replicas that the empty node holds, without ``max_per_node``."""
        by_cpu = int(self._cpus / demand.cpus + _ROUNDING) if demand.cpus else demand.max_replicas
        if not demand.gpus:
            return by_cpu
        each = (
            int(1 / demand.gpus + _ROUNDING) * len(self._gpus)
            if demand.gpus < 1
            else len(self._gpus) // math.ceil(demand.gpus)
        )
        return min(by_cpu, each)

    def put(self, demand: Demand) -> None:
        for gpu in self._gpus_for(demand) or ():
            self._gpus[gpu] -= min(1.0, demand.gpus)
        self._cpus -= demand.cpus
        self._held[demand.name] += 1

    def _gpus_for(self, demand: Demand) -> list[int] | None:
        """Indices of the GPUs that a replica would get, the fullest that has room first; None where it has to wait."""
        each, number = min(1.0, demand.gpus), math.ceil(demand.gpus)
        fitting = [gpu for gpu, free in enumerate(self._gpus) if free + _ROUNDING >= each]
        fitting.sort(key=lambda gpu: self._gpus[gpu])
        return fitting[:number] if len(fitting) >= number else None
