from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.placement import Demand, Node, capacity, spread, surge_percent, without_room

CPU, GPU, HEAD = Node(4), Node(4, 1), Node(0)


def fixed(replicas: int, cpus: float = 1, gpus: float = 0, name: str = "a", per_node: int | None = None) -> Demand:
    return Demand(name, replicas, replicas, cpus, gpus, per_node)


@pytest.mark.parametrize(
    ("demand", "nodes", "most"),
    [
        (fixed(2), [CPU], None),
        (fixed(2), [CPU, HEAD], None),  # a head that holds no replicas is not a second node
        (fixed(2, gpus=1), [GPU, CPU], None),
        (fixed(1), [CPU, CPU], None),
        (fixed(2), [CPU, CPU], 1),
        (fixed(2, gpus=1), [GPU, GPU, CPU], 1),
        (fixed(5), [CPU, CPU, CPU], 3),
        (Demand("a", 2, 8, 1), [CPU, CPU], 4),  # the largest number must find room
        (Demand("a", 2, 8, 1), [CPU] * 8, 1),
        (Demand("a", 0, 4, 1), [CPU, CPU], None),
    ],
)
def test_the_death_of_a_node_leaves_half_of_the_replicas(demand: Demand, nodes: list[Node], most: int | None) -> None:
    assert spread(demand, nodes) == most


@given(st.integers(2, 20), st.integers(2, 8))
def test_spread_replicas_always_find_room_and_never_more_than_half_stand_on_one_node(replicas: int, nodes: int) -> None:
    most = spread(fixed(replicas, cpus=0), [CPU] * nodes)
    assert most is not None
    assert most <= (replicas + 1) // 2
    assert most * nodes >= replicas


def test_few_replicas_are_replaced_at_once_and_many_in_steps() -> None:
    assert [surge_percent(fixed(replicas)) for replicas in (0, 1, 2, 3, 8)] == [100, 100, 100, 25, 25]


@pytest.mark.parametrize(
    ("demands", "nodes", "full"),
    [
        ([fixed(1, 2)], [CPU], set()),
        ([fixed(1, 2.5)], [CPU], {"a"}),
        ([fixed(2, 2.5)], [CPU, CPU], {"a"}),  # 1.5 CPUs are left on each of them
        ([fixed(2, 2.5)], [CPU, CPU, CPU], set()),
        ([fixed(3, 1), fixed(1, 1, name="b")], [CPU], {"a", "b"}),
        ([fixed(3, 1), fixed(1, 0.5, name="b")], [CPU], {"a"}),
        ([fixed(1, 1, 1)], [GPU], {"a"}),
        ([fixed(1, 1, 0.5)], [GPU], set()),
        ([fixed(2, 1, 0.6)], [Node(8, 2)], {"a"}),  # 0.4 of each GPU is left, and a replica takes from one
        ([fixed(1, 1, 2)], [Node(8, 3)], {"a"}),
        ([fixed(2, 1)], [HEAD], {"a"}),
        ([fixed(2, 3, per_node=1)], [CPU, CPU], {"a"}),
    ],
)
def test_a_redeploy_has_room_where_a_node_holds_one_more_replica(
    demands: list[Demand], nodes: list[Node], full: set[str]
) -> None:
    assert without_room(demands, nodes) == full


@pytest.mark.parametrize(
    ("demand", "places"),
    [
        (fixed(9, 1, per_node=2), 4),
        (fixed(9, 3, per_node=2), 2),
        (fixed(9, 0, per_node=3), 9),
        (fixed(9, 1, 0.5, per_node=9), 2),
        (fixed(9, 1, 1), 1),
    ],
)
def test_the_places_for_a_deployment_are_counted(demand: Demand, places: int) -> None:
    assert capacity(demand, [CPU, GPU, HEAD] if demand.cpus else [CPU, GPU, CPU]) == places
