"""Conflicts between rows, and the partition of a job's rows into batches."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data import conflict_free_batches
from training.data.conflict_free_batches import TextIds, batches, full_batches, largest_batch, text_ids

# 1,000 questions and 10 answers: how many have each
SKEWED = [400, 250, 150, 80, 50, 30, 20, 10, 6, 4]


def ids_of(rows: Sequence[Sequence[str]]) -> TextIds:
    return text_ids(zip(*rows, strict=True))


def faq(sizes: Sequence[int]) -> TextIds:
    """Different questions, with these numbers of questions for each answer."""
    answers = [f"a{i}" for i, size in enumerate(sizes) for _ in range(size)]
    return text_ids([[f"q{i}" for i in range(len(answers))], answers])


def may_meet(one: Sequence[str], other: Sequence[str]) -> bool:
    """The definition: neither's query or positive is anywhere in the other."""
    return not any(text in other for text in one[:2]) and not any(text in one for text in other[:2])


ROWS = st.integers(2, 4).flatmap(
    lambda width: st.lists(st.lists(st.sampled_from("abcdefghij"), min_size=width, max_size=width), min_size=1)
)


@given(ROWS, st.integers(1, 6), st.randoms())
def test_every_row_is_in_one_batch_without_conflicts(rows: list[list[str]], size: int, draw: object) -> None:
    order = list(range(len(rows)))
    draw.shuffle(order)  # type: ignore[attr-defined]
    found = list(batches(ids_of(rows), size, order))
    assert sorted(row for batch in found for row in batch) == list(range(len(rows)))
    for batch in found:
        assert 1 <= len(batch) <= size
        for place, row in enumerate(batch):
            assert all(may_meet(rows[row], rows[other]) for other in batch[:place])


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 3))
def test_rows_without_conflicts_fill_all_batches_but_the_last(count: int, size: int, epoch: int) -> None:
    found = full_batches(faq([1] * count), size, seed=1, epoch=epoch)
    assert [len(batch) for batch in found] == [size] * (count // size)
    assert len({row for batch in found for row in batch}) == count // size * size


def test_an_epoch_has_its_own_order_and_always_the_same() -> None:
    ids = faq([1] * 40)
    orders = [full_batches(ids, 8, seed=1, epoch=epoch) for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]
    assert orders[0] != full_batches(ids, 8, seed=2)


def test_a_batch_needs_as_many_different_answers_as_it_has_rows() -> None:
    ids = faq(SKEWED)
    assert largest_batch(ids, 32) == 10
    assert len(full_batches(ids, 10, seed=0)) == 4, "the rarest answer is in each of them"
    assert len(full_batches(ids, 2, seed=0)) > 350


def test_a_row_that_conflicts_with_all_others_does_so_in_one_batch() -> None:
    rows = [["q0", "x", "n0"], *([f"q{i}", f"p{i}", "x"] for i in range(1, 100))]
    assert largest_batch(ids_of(rows), 200) == 99
    assert largest_batch(ids_of([["q1", "p1"], ["q1", "p2"], ["q2", "p1"]]), 3) == 2


def test_a_negative_that_all_rows_share_is_not_a_conflict() -> None:
    assert largest_batch(ids_of([[f"q{i}", f"p{i}", "the same"] for i in range(100)]), 100) == 100


def test_rows_with_a_popular_answer_are_not_all_examined_for_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    take = conflict_free_batches._Batch.take

    def counted(batch: conflict_free_batches._Batch, row: int) -> int | None:
        nonlocal calls
        calls += 1
        return take(batch, row)

    monkeypatch.setattr(conflict_free_batches._Batch, "take", counted)
    full_batches(faq([4000, *[1] * 4000]), 16, seed=0)  # half of the rows have one answer
    assert calls < 3 * 8000
