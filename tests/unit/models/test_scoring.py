"""MaxSim against a loop over tokens in float64."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from serve_app.models import scoring
from serve_app.models.scoring import best_matches, max_sim

WIDTH = 8
TOLERANCE = 1e-5  # sums of at most a few dozen products near 1, in float32

Vectors = list[torch.Tensor]


def loop_score(query: torch.Tensor, candidate: torch.Tensor) -> float:
    """The oracle: one query token after the other, one candidate token after the other, no padding."""
    rows, columns = query.double().numpy(), candidate.double().numpy()
    return sum(max(float(np.dot(row, column)) for column in columns) for row in rows)


def unit_vectors(random: np.random.Generator, length: int) -> torch.Tensor:
    vectors = random.normal(size=(length, WIDTH))
    return torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).float()


def flat(candidates: Vectors) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """The candidates one after the other, and their lengths."""
    return torch.cat(candidates), np.array([len(candidate) for candidate in candidates])


def ragged(seed: int, lengths: list[int], query_length: int) -> tuple[torch.Tensor, Vectors]:
    random = np.random.default_rng(seed)
    return unit_vectors(random, query_length), [unit_vectors(random, length) for length in lengths]


@given(
    seed=st.integers(0, 1000),
    query_length=st.integers(1, 9),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    max_similarities=st.integers(1, 200),
)
def test_scores_equal_those_of_a_loop_over_tokens_for_any_block(
    seed: int, query_length: int, lengths: list[int], max_similarities: int
) -> None:
    query, candidates = ragged(seed, lengths, query_length)
    scores = max_sim(query, *flat(candidates), max_similarities=max_similarities)
    assert (scores.dtype, scores.shape) == (torch.float32, (len(candidates),))
    np.testing.assert_allclose(scores, [loop_score(query, each) for each in candidates], atol=TOLERANCE)


@pytest.mark.parametrize("max_similarities", [1, 3, 10**6])
def test_negative_similarities_count_as_they_are(max_similarities: int) -> None:
    candidates = [-torch.ones(1, WIDTH), torch.ones(4, WIDTH)]
    scores = max_sim(torch.ones(2, WIDTH), *flat(candidates), max_similarities=max_similarities)
    assert scores.tolist() == [-2.0 * WIDTH, 2.0 * WIDTH]


def test_a_candidate_without_tokens_scores_below_all_others() -> None:
    scores = max_sim(torch.ones(2, WIDTH), torch.ones(3, WIDTH), np.array([1, 0, 2]))
    assert scores.tolist() == [2.0 * WIDTH, float("-inf"), 2.0 * WIDTH]


def test_the_mean_is_the_colbert_score_of_bge_m3() -> None:
    query, candidates = ragged(0, [5, 1, 9], query_length=7)
    means = max_sim(query, *flat(candidates)) / len(query)
    for mean, candidate in zip(means, candidates, strict=True):
        # BGE-M3's own lines, as FlagEmbedding has them
        token_scores = torch.einsum("in,jn->ij", query, candidate)
        best, _ = token_scores.max(-1)
        np.testing.assert_allclose(mean, torch.sum(best) / query.size(0), atol=TOLERANCE)


def test_a_text_scores_highest_against_itself() -> None:
    query, others = ragged(1, [6, 6, 6], query_length=6)
    scores = max_sim(query, *flat([query, *others]))
    assert scores[0] == pytest.approx(6, abs=TOLERANCE)
    assert (scores[1:] < 5.9).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_vectors_are_multiplied_and_added_in_float32(dtype: torch.dtype) -> None:
    query, candidates = ragged(2, [30, 17], query_length=40)
    query, candidates = query.to(dtype), [candidate.to(dtype) for candidate in candidates]
    scores = max_sim(query, *flat(candidates))
    assert scores.dtype is torch.float32
    exact = [loop_score(query, candidate) for candidate in candidates]
    np.testing.assert_allclose(scores, exact, atol=TOLERANCE)


@pytest.mark.parametrize("max_similarities", [1, 10**6])
def test_a_vector_that_is_not_a_number_shows_in_its_candidate_alone(max_similarities: int) -> None:
    query, candidates = ragged(3, [3, 3, 3], query_length=2)
    candidates[1][0] = torch.nan
    scores = max_sim(query, *flat(candidates), max_similarities=max_similarities)
    assert scores.isfinite().tolist() == [True, False, True]


def test_no_candidates_have_no_scores() -> None:
    scores = max_sim(torch.ones(2, WIDTH), torch.ones(0, WIDTH), np.empty(0, np.int64))
    assert (scores.shape, scores.dtype) == ((0,), torch.float32)


class Products(TorchFunctionMode):
    """Remembers the sizes of all matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if "matmul" in getattr(func, "__name__", ""):
            self.sizes.append(result.numel())
        return result


@pytest.mark.parametrize("max_similarities", [5, 17, 60, 64, 150, 599, 600])
def test_the_block_of_similarities_stays_within_its_bound_and_is_used(max_similarities: int) -> None:
    query, candidates = ragged(4, [12] * 10, query_length=5)
    with Products() as products:
        max_sim(query, *flat(candidates), max_similarities=max_similarities)
    assert sum(products.sizes) == 5 * 12 * 10
    assert max_similarities / 2 < max(products.sizes) <= max_similarities
    with Products() as products:
        best_matches(candidates[0], candidates[1], max_similarities=max_similarities)
    assert sum(products.sizes) == 12 * 12
    assert max(products.sizes) <= max(12, max_similarities)


@given(
    seed=st.integers(0, 1000),
    query_length=st.integers(1, 9),
    length=st.integers(1, 12),
    max_similarities=st.integers(1, 200),
)
def test_the_best_matches_are_those_of_a_loop_and_add_up_to_the_score(
    seed: int, query_length: int, length: int, max_similarities: int
) -> None:
    query, (candidate,) = ragged(seed, [length], query_length)
    indices, similarities = best_matches(query, candidate, max_similarities=max_similarities)
    assert (indices.dtype, similarities.dtype) == (torch.int64, torch.float32)
    assert indices.tolist() == [
        max(range(length), key=[float(token @ other) for other in candidate].__getitem__) for token in query
    ]
    np.testing.assert_allclose(similarities, [t @ candidate[i] for t, i in zip(query, indices, strict=True)], atol=1e-6)
    np.testing.assert_allclose(similarities.sum(), max_sim(query, *flat([candidate]))[0], atol=TOLERANCE)


def test_the_example_in_the_documentation_is_right() -> None:
    assert doctest.testmod(scoring) == doctest.TestResults(failed=0, attempted=3)
