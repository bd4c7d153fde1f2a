from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.embeddings import EncodedBatch, ItemFailure, RequestShare, TokenBatch

rows_of_ids = st.lists(st.lists(st.integers(0, 250_001), min_size=1, max_size=12), max_size=12)


def batch_of(rows: list[list[int]], shares: tuple[RequestShare, ...] = ()) -> TokenBatch:
    flat = [token for row in rows for token in row]
    return TokenBatch(np.array(flat, np.int32), np.array([len(row) for row in rows], np.int32), shares)


def listed(batch: TokenBatch) -> list[list[int]]:
    return [row.tolist() for row in batch.rows()]


@given(rows_of_ids)
def test_rows_are_the_texts_that_went_in(rows: list[list[int]]) -> None:
    batch = batch_of(rows)
    assert listed(batch) == rows
    assert batch.tokens == sum(map(len, rows))


def test_rows_are_views_not_copies() -> None:
    batch = batch_of([[1, 2], [3]])
    assert all(np.shares_memory(row, batch.ids) for row in batch.rows())


@given(rows_of_ids.filter(bool))
def test_a_batch_of_rows_has_these_rows_in_int32(rows: list[list[int]]) -> None:
    batch = TokenBatch.of_rows([np.array(row, np.int32) for row in rows])
    assert listed(batch) == rows
    assert batch.ids.dtype == batch.lengths.dtype == np.int32


@given(st.lists(rows_of_ids, min_size=1, max_size=5))
def test_a_joined_batch_is_its_parts_one_after_the_other(parts: list[list[list[int]]]) -> None:
    batches = [batch_of(rows, (RequestShare(key, len(rows), 1.0),)) for key, rows in enumerate(parts)]
    joined = TokenBatch.join(batches)
    assert listed(joined) == [row for rows in parts for row in rows]
    assert [(share.key, share.count) for share in joined.shares] == [(k, len(rows)) for k, rows in enumerate(parts)]


@given(rows_of_ids, st.integers(1, 40))
def test_slices_cut_between_texts_and_lose_none(rows: list[list[int]], max_tokens: int) -> None:
    slices = batch_of(rows).slices(max_tokens)
    assert [row for part in slices for row in rows[part]] == rows


@given(rows_of_ids, st.integers(1, 40))
def test_a_slice_is_within_the_bound_or_one_longer_text(rows: list[list[int]], max_tokens: int) -> None:
    for part in batch_of(rows).slices(max_tokens):
        lengths = [len(row) for row in rows[part]]
        assert lengths
        assert sum(lengths) <= max_tokens or len(lengths) == 1


@given(rows_of_ids, st.integers(1, 40))
def test_a_slice_ends_only_where_the_next_text_would_not_fit(rows: list[list[int]], max_tokens: int) -> None:
    slices = batch_of(rows).slices(max_tokens)
    for part, after in pairwise(slices):
        assert sum(len(row) for row in rows[part]) + len(rows[after.start]) > max_tokens


def answer_of(codes: list[str | None]) -> EncodedBatch:
    """Row ``i`` is ``[i, i]``; where there is a code the text failed with it."""
    vectors = np.repeat(np.arange(len(codes), dtype=np.float32)[:, None], 2, axis=1)
    failed = [ItemFailure(i, code, f"text {i}", float(i)) for i, code in enumerate(codes) if code]
    return EncodedBatch(vectors, tuple(failed))


def by_text(answer: EncodedBatch) -> list[tuple[list[float], str | None, str | None, float | None]]:
    """The slow form of an answer: everything about each text beside it."""
    failures = {f.index: f for f in answer.failures}
    assert len(failures) == len(answer.failures)
    return [
        (row, f.code, f.message, f.retry_after_s) if (f := failures.get(i)) else (row, None, None, None)
        for i, row in enumerate(answer.dense.tolist())
    ]


codes = st.lists(st.sampled_from([None, None, "non_finite", "queue_full"]), max_size=12)


@given(codes, st.data())
def test_a_part_of_an_answer_says_of_each_text_what_the_whole_said(
    codes: list[str | None], data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(codes)))
    stop = data.draw(st.integers(start, len(codes)))
    answer = answer_of(codes)
    assert by_text(answer.part(start, stop)) == by_text(answer)[start:stop]


@given(st.lists(codes, min_size=1, max_size=5))
def test_a_joined_answer_says_of_each_text_what_its_part_said(parts: list[list[str | None]]) -> None:
    answers = [answer_of(part) for part in parts]
    assert by_text(EncodedBatch.join(answers)) == [text for answer in answers for text in by_text(answer)]


@given(codes, st.data())
def test_an_answer_that_was_cut_joins_to_what_it_was(codes: list[str | None], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(codes)))
    answer = answer_of(codes)
    joined = EncodedBatch.join([answer.part(0, cut), answer.part(cut, len(codes))])
    assert by_text(joined) == by_text(answer)
    assert joined.dense.dtype == np.float32


def test_values_survive_the_way_between_processes() -> None:
    batch = batch_of([[1, 2], [3]], (RequestShare(9, 2, 0.5),))
    came = pickle.loads(pickle.dumps(batch))
    assert listed(came) == listed(batch)
    assert came.shares == batch.shares
    answer = answer_of([None, "queue_full"])
    assert by_text(pickle.loads(pickle.dumps(answer))) == by_text(answer)
