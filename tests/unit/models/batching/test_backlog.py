"""What the backlog keeps in memory, what an arriving request costs, and whose budget it shares."""

from __future__ import annotations

import gc
import random
import weakref
from typing import Any

import pytest

from serve_app.models.batching import fair_share
from serve_app.models.batching.backlog import Backlog


class FineTune:
    """A group that is as large as a model."""


def backlog(budget: int = 100) -> Backlog[Any]:
    return Backlog(max_batch_tokens=budget, max_padding_tokens=10)


def add(to: Backlog[Any], name: str, lengths: list[int], *, key: int, group: object = None) -> None:
    to.add([f"{name}{i}" for i in range(len(lengths))], lengths, key=key, max_texts=10**6, group=group)


def is_kept(reference: weakref.ref[FineTune]) -> bool:
    gc.collect()
    return reference() is not None


# ------------------------------------------------------------------ memory


def test_a_group_is_released_when_its_last_text_leaves_although_other_texts_always_wait() -> None:
    waiting, group = backlog(), FineTune()
    reference = weakref.ref(group)
    add(waiting, "tuned", [10] * 40, key=0, group=group)
    del group
    late = 0
    for key in range(1, 400):  # other requests never stop
        add(waiting, f"base{key}-", [10] * 15, key=key)
        waiting.take()
        late += reference() is not None and reference() in waiting._order._late_by_length
    assert late, "some of the texts were late"
    assert len(waiting)
    assert not is_kept(reference)


@pytest.mark.parametrize("taken", [0, 1])
def test_a_group_is_released_when_a_client_cancels_the_rest_of_its_list(taken: int) -> None:
    waiting, group = backlog(budget=10), FineTune()
    reference = weakref.ref(group)
    add(waiting, "tuned", [10] * 5, key=0, group=group)
    del group
    for _ in range(taken):
        assert waiting.take() == ["tuned0"]
    waiting.discard(0, lambda _: True)
    assert len(waiting) == waiting.tokens == 0
    assert waiting.take() == []
    assert not is_kept(reference)


def test_a_group_whose_late_texts_are_cancelled_is_released() -> None:
    waiting, group = backlog(budget=10), FineTune()
    reference = weakref.ref(group)
    add(waiting, "tuned", [10] * 3, key=0, group=group)
    for key in range(1, 50):
        add(waiting, f"base{key}-", [10] * 3, key=key)
        waiting.take()
        if waiting._order._late_by_length.get(group):
            break
    else:
        pytest.fail("no text of the group was late")
    del group
    waiting.discard(0, lambda text: text.startswith("tuned"))
    waiting.take()
    waiting.take()
    assert len(waiting)
    assert not is_kept(reference)


# ------------------------------------------------------------------ cost


def test_the_cost_of_a_request_does_not_grow_with_the_number_of_those_that_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = 0

    class Counted(fair_share.Request[Any]):
        """Counts how often its service is read, and its oldest text."""

        def oldest(self) -> Any:
            nonlocal reads
            reads += 1
            return super().oldest()

        def __getattribute__(self, name: str) -> Any:
            nonlocal reads
            reads += name == "served"
            return super().__getattribute__(name)

    monkeypatch.setattr(fair_share, "Request", Counted)
    waiting, clients = backlog(), 2000
    for key in range(clients):
        add(waiting, f"first{key}-", [10], key=key)
    for key in range(clients, 2 * clients):  # each answer brings a new request
        if key % 10 == 0:
            assert len(waiting.take()) == 10
        add(waiting, f"next{key}-", [10], key=key)
    while waiting.take():
        pass
    assert reads <= 20 * 2 * clients


# ------------------------------------------------------------------ budget


@pytest.mark.parametrize("seed", range(5))
def test_a_budget_that_has_shrunk_is_shared_as_one_that_was_configured_so(seed: int) -> None:
    draw = random.Random(seed)
    shrunk, small = backlog(budget=10_000), backlog(budget=100)
    shrunk.max_batch_tokens = 100
    for step in range(200):
        lengths = [draw.randint(5, 25) for _ in range(draw.choice([0, 1, 1, 12]))]
        for each in (shrunk, small):
            if lengths:
                add(each, f"step{step}-", lengths, key=step)
        assert shrunk.take() == small.take()
