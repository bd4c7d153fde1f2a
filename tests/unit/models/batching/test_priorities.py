"""The least of values that change, against an oracle that looks at all of them."""

from __future__ import annotations

import random

import pytest

from serve_app.models.batching.priorities import Priorities


@pytest.mark.parametrize("seed", range(5))
def test_the_least_value_is_found_after_any_changes_and_among_equals_the_first_key(seed: int) -> None:
    draw = random.Random(seed)
    ours, oracle = Priorities(), dict[int, float]()
    for _ in range(2000):
        key = draw.randrange(30)
        if draw.random() < 0.3:
            ours.remove(key)
            oracle.pop(key, None)
        else:
            value = draw.choice([0.0, 1.0, 2.0, draw.random()])
            ours.set(key, value)
            oracle[key] = value
        expected = min(oracle.items(), key=lambda item: item[1]) if oracle else None
        assert ours.least() == expected


def test_outdated_values_take_no_more_memory_than_the_current_ones() -> None:
    ours = Priorities()
    ours.set(0, -1.0)
    for i in range(10_000):
        ours.set(1 + i % 3, float(i))
    assert len(ours._heap) < 50
    assert ours.least() == (0, -1.0)
