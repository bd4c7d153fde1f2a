from __future__ import annotations

import pickle
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.embeddings import (
    DENSE,
    Encoded,
    EncodedBatch,
    ItemFailure,
    ModelVersion,
    RequestShare,
    TokenBatch,
)
from serve_app.domain.errors import NonFiniteError, QueueFullError, ServiceError
from serve_app.domain.profiles import Capability
from serve_app.domain.ragged import Ragged

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


def test_a_joined_batch_keeps_the_variant_of_its_parts() -> None:
    model_version = ModelVersion("laws", "job-1")
    parts = [TokenBatch.of_rows([np.array([i], np.int32)], model_version=model_version) for i in range(3)]
    assert TokenBatch.join(parts).model_version == model_version
    assert TokenBatch.join([batch_of([[1]]), batch_of([[2]])]).model_version is None


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
def test_a_part_of_an_answer_has_the_values_of_the_whole(codes: list[str | None], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(codes)))
    stop = data.draw(st.integers(start, len(codes)))
    answer = answer_of(codes)
    assert by_text(answer.part(start, stop)) == by_text(answer)[start:stop]


@given(st.lists(codes, min_size=1, max_size=5))
def test_a_joined_answer_has_the_values_of_its_parts(parts: list[list[str | None]]) -> None:
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
    batch = TokenBatch.of_rows(
        batch_of([[1, 2], [3]]).rows(), (RequestShare(9, 2, 0.5),), ModelVersion("laws", "job-1")
    )
    came = pickle.loads(pickle.dumps(batch))
    assert listed(came) == listed(batch)
    assert came.shares == batch.shares
    assert came.model_version == batch.model_version
    assert hash(came.model_version) == hash(batch.model_version)
    answer = answer_of([None, "queue_full"])
    assert by_text(pickle.loads(pickle.dumps(answer))) == by_text(answer)


# ------------------------------------------------------------------ sparse and ColBERT rows

DIMENSION = 3
ALL = DENSE | {Capability.SPARSE, Capability.COLBERT, Capability.TOKEN_STATES}


def text_of(seed: int, want: frozenset[Capability]) -> Encoded:
    """A text of up to four tokens with what it wants; perhaps it has no token with a weight."""
    draw = np.random.default_rng(seed)
    tokens, weighted = (int(count) for count in draw.integers(0, 5, 2))
    sparse = np.arange(weighted, dtype=np.int32), draw.random(weighted, np.float32)
    return Encoded(
        draw.random(DIMENSION, np.float32),
        sparse if Capability.SPARSE in want else None,
        draw.random((tokens, DIMENSION), np.float32) if Capability.COLBERT in want else None,
        draw.random((tokens, DIMENSION), np.float32) if Capability.TOKEN_STATES in want else None,
    )


results = st.lists(
    st.one_of(
        st.builds(
            text_of,
            st.integers(0, 10**6),
            st.frozensets(st.sampled_from([Capability.SPARSE, Capability.COLBERT, Capability.TOKEN_STATES])).map(
                DENSE.union
            ),
        ),
        st.just(NonFiniteError("no number")),
        st.just(QueueFullError("full", retry_after_s=2.5)),
    ),
    min_size=1,
    max_size=8,
)


def plain(result: Encoded | ServiceError) -> dict[str, Any]:
    """The slow form of what is expected of one text in an answer in which everything was asked for."""
    if isinstance(result, ServiceError):
        failure = (result.code, result.message, result.retry_after_s)
        return {"failure": failure, "dense": [0.0] * DIMENSION, "sparse": {}, "colbert": [], "states": []}
    ids, weights = result.sparse or (np.empty(0), np.empty(0))
    return {
        "failure": None,
        "dense": result.dense.tolist(),
        "sparse": dict(zip(ids.tolist(), weights.tolist(), strict=True)),
        "colbert": [] if result.colbert is None else result.colbert.tolist(),
        "states": [] if result.states is None else result.states.tolist(),
    }


def reported(answer: EncodedBatch) -> list[dict[str, Any]]:
    """Likewise, read from an answer."""
    assert answer.sparse_ids is not None
    assert answer.sparse_weights is not None
    assert answer.colbert is not None
    assert answer.states is not None
    failures = {f.index: (f.code, f.message, f.retry_after_s) for f in answer.failures}
    assert len(failures) == len(answer.failures)
    ragged = (answer.sparse_ids, answer.sparse_weights, answer.colbert, answer.states)
    rows = zip(answer.dense, *(part.rows() for part in ragged), strict=True)
    return [
        {
            "failure": failures.get(i),
            "dense": dense.tolist(),
            "sparse": dict(zip(ids.tolist(), weights.tolist(), strict=True)),
            "colbert": vectors.tolist(),
            "states": states.tolist(),
        }
        for i, (dense, ids, weights, vectors, states) in enumerate(rows)
    ]


@given(results)
def test_an_answer_has_the_values_of_its_results(results: list[Encoded | ServiceError]) -> None:
    answer = EncodedBatch.of_texts(results, ALL, DIMENSION)
    assert reported(answer) == [plain(result) for result in results]
    assert answer.sparse_ids is not None
    assert answer.sparse_weights is not None
    assert answer.colbert is not None
    types = [rows.values.dtype for rows in (answer.sparse_ids, answer.sparse_weights, answer.colbert)]
    assert types == [np.int32, np.float32, np.float32]
    assert answer.colbert.values.shape[1] == DIMENSION


@given(results, st.data())
def test_an_answer_with_all_representations_that_was_cut_joins_to_what_it_was(
    results: list[Encoded | ServiceError], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(results)))
    answer = EncodedBatch.of_texts(results, ALL, DIMENSION)
    parts = [answer.part(0, cut), answer.part(cut, len(results))]
    assert [text for part in parts for text in reported(part)] == reported(answer)
    assert reported(EncodedBatch.join(parts)) == reported(answer)


@given(st.lists(results, min_size=2, max_size=4))
def test_joined_answers_have_the_values_of_their_results(parts: list[list[Encoded | ServiceError]]) -> None:
    joined = EncodedBatch.join([EncodedBatch.of_texts(part, ALL, DIMENSION) for part in parts])
    assert reported(joined) == [plain(result) for part in parts for result in part]


@pytest.mark.parametrize("want", [DENSE, DENSE | {Capability.SPARSE}, DENSE | {Capability.COLBERT}, ALL])
def test_an_answer_has_no_rows_of_representations_that_were_not_requested(want: frozenset[Capability]) -> None:
    answers = [EncodedBatch.of_texts([text_of(seed, ALL) for seed in range(3)], want, DIMENSION) for _ in range(2)]
    for answer in (answers[0], answers[0].part(1, 2), EncodedBatch.join(answers)):
        assert (answer.sparse_ids is not None) == (Capability.SPARSE in want)
        assert (answer.sparse_weights is not None) == (Capability.SPARSE in want)
        assert (answer.colbert is not None) == (Capability.COLBERT in want)
        assert (answer.states is not None) == (Capability.TOKEN_STATES in want)


def test_the_rows_of_a_part_are_views_not_copies() -> None:
    answer = EncodedBatch.of_texts([text_of(seed, ALL) for seed in range(6)], ALL, DIMENSION)
    part = answer.part(1, 5)
    for mine, whole in ((part.sparse_ids, answer.sparse_ids), (part.colbert, answer.colbert)):
        assert isinstance(mine, Ragged)
        assert isinstance(whole, Ragged)
        assert np.shares_memory(mine.values, whole.values)
    assert np.shares_memory(part.dense, answer.dense)


def test_an_answer_in_which_every_text_failed_has_the_dimension_of_the_model() -> None:
    answer = EncodedBatch.of_texts([NonFiniteError("no number")] * 3, ALL, DIMENSION)
    assert answer.dense.shape == (3, DIMENSION)
    assert answer.colbert is not None
    assert answer.colbert.values.shape == (0, DIMENSION)


def test_a_text_that_fails_beside_others_of_a_fine_tune_of_another_dimension_spoils_none_of_them() -> None:
    tuned = text_of(0, ALL)
    answer = EncodedBatch.of_texts([NonFiniteError("no number"), tuned], ALL, DIMENSION + 1)
    assert answer.dense[1].tolist() == tuned.dense.tolist()
    assert [failure.index for failure in answer.failures] == [0]


@pytest.mark.parametrize("error", [NonFiniteError("no number"), QueueFullError("full", retry_after_s=2.5)])
def test_a_failure_becomes_the_error_that_it_was_and_names_a_text_at_fault(error: ServiceError) -> None:
    came = ItemFailure.of(4, error).error()
    assert (type(came), came.message, came.retry_after_s) == (type(error), error.message, error.retry_after_s)
    assert came.item == (4 if isinstance(error, NonFiniteError) else None), "a full queue is not caused by a text"
