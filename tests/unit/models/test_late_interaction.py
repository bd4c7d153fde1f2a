"""Reranking by late interaction; a table of token vectors stands in for the transformer, a loop is the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from serve_app.domain.embeddings import Int32
from serve_app.domain.errors import InternalError, NonFiniteError, OutOfMemoryError, ServiceError
from serve_app.domain.rank_request import TokenMatches
from serve_app.models import late_interaction
from serve_app.models.late_interaction import (
    CandidateText,
    LateInteractionModel,
    QueryText,
    RerankItem,
    RerankResult,
)
from serve_app.models.loader import load_model
from serve_app.models.model_source import describe
from serve_app.models.scoring import max_sim

WIDTH, PIECES, POISON = 16, 60, 59
TOLERANCE = 1e-5  # padding changes the order of sums in float32, nothing else

Candidates = list[Int32]


class TableEncoder:
    """A token's vector is its row of a random table, whatever stands around it; ``POISON`` has none."""

    def __init__(self, fits: int = 10**6, poison: float = float("nan")) -> None:
        self.table = functional.normalize(torch.randn(PIECES, WIDTH, generator=torch.Generator().manual_seed(0)), dim=1)
        self.table[POISON] = poison
        self.calls: list[int] = []
        self.releases = 0
        self._fits = fits

    def token_vectors(self, texts: Sequence[Int32]) -> torch.Tensor:
        self.calls.append(len(texts))
        if len(texts) > self._fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return torch.cat([self.table[torch.from_numpy(ids[1:]).long()] for ids in texts])

    def release_memory(self) -> None:
        self.releases += 1


def text(*ids: int) -> Int32:
    return np.array([0, *ids, 2], np.int32)


def texts(seed: int, lengths: Sequence[int]) -> Candidates:
    random = np.random.default_rng(seed)
    return [text(*random.integers(3, POISON, length).tolist()) for length in lengths]


QUERIES = [text(5, 6, 7), text(8, 9, 10, 11, 12)]
CANDIDATES = [texts(0, [1, 4, 30, 2]), texts(1, [7, 1, 12])]


def query_of(result: RerankResult) -> torch.Tensor:
    assert isinstance(result, torch.Tensor)
    return result


def two_requests(model: LateInteractionModel) -> list[RerankItem]:
    """The candidates of both requests, each with its query's vectors."""
    vectors = [query_of(result) for result in model.forward([QueryText(ids) for ids in QUERIES])]
    return [CandidateText(ids, query) for query, group in zip(vectors, CANDIDATES, strict=True) for ids in group]


def loop_scores(table: torch.Tensor) -> list[float]:
    """The oracle for the candidates of both requests, in float64, one text after the other."""
    exact = table.double()
    return [
        sum(max(float(exact[a] @ exact[b]) for b in ids[1:]) for a in query[1:])
        for query, group in zip(QUERIES, CANDIDATES, strict=True)
        for ids in group
    ]


def assert_scores(results: Sequence[RerankResult], expected: Sequence[float]) -> None:
    assert all(type(result) is float for result in results), results
    np.testing.assert_allclose(results, expected, atol=TOLERANCE)  # type: ignore[arg-type]


def test_a_query_gives_its_vectors_and_a_candidate_the_sum_of_its_best_similarities() -> None:
    encoder = TableEncoder()
    model = LateInteractionModel(encoder)
    queries = model.forward([QueryText(ids) for ids in QUERIES])
    for ids, result in zip(QUERIES, queries, strict=True):
        assert torch.equal(query_of(result), encoder.table[ids[1:].tolist()])
    assert_scores(model.forward(two_requests(model)), loop_scores(encoder.table))


def test_a_candidate_of_a_mixed_micro_batch_has_the_score_it_has_alone() -> None:
    model = LateInteractionModel(TableEncoder())
    items = two_requests(model)
    alone = [score for item in items for score in model.forward([item])]
    assert_scores(alone, loop_scores(TableEncoder().table))
    assert_scores(model.forward(items), [float(score) for score in alone])  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_permuted_items_give_permuted_results(seed: int) -> None:
    encoder = TableEncoder()
    model = LateInteractionModel(encoder)
    items = [*two_requests(model), QueryText(QUERIES[0]), QueryText(text(20))]
    order = np.random.default_rng(seed).permutation(len(items))
    results = dict(zip(order.tolist(), model.forward([items[i] for i in order]), strict=True))
    assert_scores([results[i] for i in range(len(items) - 2)], loop_scores(encoder.table))
    assert torch.equal(query_of(results[len(items) - 2]), encoder.table[QUERIES[0][1:].tolist()])
    assert torch.equal(query_of(results[len(items) - 1]), encoder.table[[20, 2]])


def test_a_micro_batch_is_one_forward_and_one_max_sim_for_each_query(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TableEncoder()
    model = LateInteractionModel(encoder)
    items = two_requests(model)
    encoder.calls.clear()
    scored = []

    def counted(query: torch.Tensor, candidates: torch.Tensor, lengths: NDArray[np.int64]) -> torch.Tensor:
        scored.append(len(lengths))
        return max_sim(query, candidates, lengths)

    monkeypatch.setattr(late_interaction, "max_sim", counted)
    mixed = [items[i] for i in (0, 4, 1, 5, 2, 6, 3)]
    model.forward([QueryText(QUERIES[1]), *mixed])
    assert encoder.calls == [8]
    assert sorted(scored) == [3, 4]


def test_nothing_is_computed_for_nothing() -> None:
    encoder = TableEncoder()
    assert LateInteractionModel(encoder).forward([]) == []
    assert encoder.calls == []


# ------------------------------------------------------------------ what fails, fails alone


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("at", [0, 2, 7])
def test_a_text_without_finite_vectors_fails_alone(value: float, at: int) -> None:
    encoder = TableEncoder(poison=value)
    model = LateInteractionModel(encoder)
    items = two_requests(model)
    query = query_of(model.forward([QueryText(QUERIES[0])])[0])
    for broken in (QueryText(text(5, POISON)), CandidateText(text(POISON), query)):
        results = model.forward([*items[:at], broken, *items[at:]])
        assert isinstance(results.pop(at), NonFiniteError)
        assert_scores(results, loop_scores(encoder.table))


def test_a_text_that_torch_cannot_compute_fails_alone() -> None:
    encoder = TableEncoder()
    model = LateInteractionModel(encoder)
    items = two_requests(model)
    results = model.forward([*items[:3], QueryText(text(PIECES + 1)), *items[3:]])
    assert isinstance(results.pop(3), InternalError)
    assert_scores(results, loop_scores(encoder.table))


@pytest.mark.parametrize("fits", [3, 1])
def test_a_micro_batch_without_memory_is_split_until_it_fits(fits: int) -> None:
    items = two_requests(LateInteractionModel(TableEncoder()))
    encoder = TableEncoder(fits)
    assert_scores(LateInteractionModel(encoder).forward(items), loop_scores(encoder.table))
    assert encoder.releases > 0


def test_a_text_that_alone_runs_out_of_memory_has_that_error() -> None:
    results = LateInteractionModel(TableEncoder(fits=0)).forward([QueryText(ids) for ids in QUERIES])
    assert all(isinstance(result, OutOfMemoryError) for result in results)


# ------------------------------------------------------------------ explanations


def test_an_explanation_names_the_best_token_for_each_query_token_and_adds_up_to_the_score() -> None:
    encoder = TableEncoder()
    model = LateInteractionModel(encoder)
    query = query_of(model.forward([QueryText(QUERIES[1])])[0])
    for candidate in CANDIDATES[1]:
        (explanation,) = model.explain([CandidateText(candidate, query)])
        assert isinstance(explanation, TokenMatches)
        similarities = encoder.table[QUERIES[1][1:].tolist()] @ encoder.table[candidate[1:].tolist()].T
        best = [row.index(max(row)) for row in similarities.tolist()]
        assert candidate[explanation.positions].tolist() == candidate[1:][best].tolist()
        assert (explanation.positions.dtype, explanation.similarities.dtype) == (np.int64, np.float32)
        np.testing.assert_allclose(explanation.similarities, similarities.max(dim=1).values, atol=1e-6)
        assert_scores(model.forward([CandidateText(candidate, query)]), [float(explanation.similarities.sum())])


@pytest.mark.parametrize(
    ("encoder", "candidate", "error"),
    [
        (TableEncoder(), text(5, POISON), NonFiniteError),
        (TableEncoder(), text(PIECES), InternalError),
        (TableEncoder(fits=0), text(5), OutOfMemoryError),
    ],
)
def test_an_item_that_cannot_be_explained_fails_alone(
    encoder: TableEncoder, candidate: Int32, error: type[ServiceError]
) -> None:
    items = [CandidateText(ids, encoder.table[:3]) for ids in (candidate, text(6))]
    bad, good = LateInteractionModel(encoder).explain(items)
    assert isinstance(bad, error)
    assert isinstance(good, OutOfMemoryError if error is OutOfMemoryError else TokenMatches)


# ------------------------------------------------------------------ with a real transformer


@pytest.fixture(scope="module")
def model(bge_m3_tiny: Path) -> LateInteractionModel:
    return LateInteractionModel(load_model(describe("bge-m3-tiny", bge_m3_tiny), device="cpu", dtype="float32"))


def test_a_real_model_gives_the_scores_of_its_token_vectors_in_any_company(model: LateInteractionModel) -> None:
    items = two_requests(model)
    together = model.forward([QueryText(CANDIDATES[0][2]), *items])[1:]
    alone = []
    for query, group in zip(QUERIES, CANDIDATES, strict=True):
        a = model.encoder.token_vectors([query])
        for ids in group:
            b = model.encoder.token_vectors([ids])
            # BGE-M3's own colbert_score, times the number of query tokens
            alone.append(float(torch.einsum("in,jn->ij", a, b).max(-1)[0].sum()))
    assert_scores(together, alone)
    assert np.ptp(alone[:4]) > 100 * TOLERANCE  # so that the agreement means something


def test_a_real_model_explains_its_scores(model: LateInteractionModel) -> None:
    query = query_of(model.forward([QueryText(QUERIES[0])])[0])
    (explanation,) = model.explain([CandidateText(CANDIDATES[0][2], query)])
    assert isinstance(explanation, TokenMatches)
    assert_scores(model.forward([CandidateText(CANDIDATES[0][2], query)]), [float(explanation.similarities.sum())])


def test_the_vectors_of_a_query_keep_nothing_else_in_memory(model: LateInteractionModel) -> None:
    result = model.forward([QueryText(QUERIES[0]), QueryText(CANDIDATES[0][2]), QueryText(QUERIES[1])])[0]
    vectors = query_of(result)
    assert vectors.untyped_storage().nbytes() == vectors.numel() * vectors.element_size()
