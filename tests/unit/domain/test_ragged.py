"""Rows of different lengths in one array; a list of lists is the slow form."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from serve_app.domain.ragged import Ragged

lists = st.lists(st.lists(st.integers(-(10**6), 10**6), max_size=6), min_size=1, max_size=10)


def rows_of(values: list[list[int]], width: int) -> list[NDArray[np.float32]]:
    """Each number becomes a row of ``width`` equal ones; with a width of 0, the number itself."""
    shape = (-1, width) if width else (-1,)
    return [np.repeat(np.array(row, np.float32), max(1, width)).reshape(shape) for row in values]


def listed(ragged: Ragged) -> list[list[float]]:
    return [row.tolist() for row in ragged.rows()]


@pytest.mark.parametrize("width", [0, 3])
@given(values=lists)
def test_rows_are_those_that_went_in(width: int, values: list[list[int]]) -> None:
    rows = rows_of(values, width)
    ragged = Ragged.of_rows(rows)
    assert listed(ragged) == [row.tolist() for row in rows]
    assert [row.shape for row in ragged.rows()] == [row.shape for row in rows]
    assert (ragged.values.dtype, ragged.lengths.dtype) == (np.float32, np.int32)


@pytest.mark.parametrize("width", [0, 3])
@given(values=lists, data=st.data())
def test_a_part_has_the_rows_of_a_slice(width: int, values: list[list[int]], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(values)))
    stop = data.draw(st.integers(start, len(values)))
    rows = rows_of(values, width)
    part = Ragged.of_rows(rows).part(start, stop)
    assert listed(part) == [row.tolist() for row in rows[start:stop]]
    assert part.values.dtype == np.float32


@pytest.mark.parametrize("width", [0, 3])
@given(values=lists, data=st.data())
def test_what_was_cut_joins_to_what_it_was(width: int, values: list[list[int]], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(values)))
    second = data.draw(st.integers(first, len(values)))
    ragged = Ragged.of_rows(rows_of(values, width))
    joined = Ragged.join([ragged.part(0, first), ragged.part(first, second), ragged.part(second, len(values))])
    assert listed(joined) == listed(ragged)
    assert (joined.values.dtype, joined.lengths.dtype) == (np.float32, np.int32)


@given(st.lists(lists, min_size=1, max_size=4))
def test_joined_parts_have_their_rows_one_after_the_other(parts: list[list[list[int]]]) -> None:
    joined = Ragged.join([Ragged.of_rows(rows_of(part, 0)) for part in parts])
    assert listed(joined) == [row for part in parts for row in part]


def test_rows_and_parts_are_views_not_copies() -> None:
    ragged = Ragged.of_rows(rows_of([[1, 2], [], [3]], 2))
    assert np.shares_memory(ragged.part(1, 3).values, ragged.values)
    assert all(np.shares_memory(row, ragged.values) for row in ragged.rows() if row.size)


def test_a_part_without_rows_keeps_the_shape_of_the_others() -> None:
    part = Ragged.of_rows(rows_of([[1, 2], [3]], 4)).part(1, 1)
    assert part.rows() == []
    assert part.values.shape == (0, 4)


def test_rows_survive_the_way_between_processes() -> None:
    ragged = Ragged.of_rows(rows_of([[1, 2], [], [3]], 2))
    assert listed(pickle.loads(pickle.dumps(ragged))) == listed(ragged)
