"""Detection of a collapsed model: one vector for every text, or a loss no better than chance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from serve_app.domain.embeddings import Encoded
from serve_app.domain.profiles import E5
from serve_app.jobs.job_updates import JobUpdate
from serve_app.jobs.training_pairs import Example
from training.evaluation.collapse import (
    collapsed_heads,
    describe_collapse,
    describe_stalled_loss,
    sample_passages,
)

ZEROS = np.zeros(2, np.float32)
SAME, NEAR, OTHER = (np.array([math.cos(angle), math.sin(angle)], np.float32) for angle in (0, 0.02, 0.1))
NOTHING = np.empty(0, np.int32), np.empty(0, np.float32)
WEIGHT = np.array([5], np.int32), np.array([0.5], np.float32)


def around_the_clock(count: int) -> list[np.ndarray]:
    return [np.array([math.cos(angle), math.sin(angle)], np.float32) for angle in np.linspace(0, 2, count)]


@pytest.mark.parametrize(
    ("vectors", "finding"),
    [
        pytest.param([SAME] * 31 + [OTHER], "computes only 2 different dense vectors", id="one exception"),
        pytest.param([SAME, OTHER] * 16, "computes only 2 different dense vectors", id="two vectors"),
        pytest.param([SAME] * 18 + around_the_clock(14), "computes only 14 different dense vectors", id="most"),
        pytest.param([ZEROS] * 32, "computes one dense vector", id="zeros"),
        pytest.param([ZEROS] * 31 + [SAME], "computes only 2 different dense vectors", id="zeros but one"),
        pytest.param([SAME, SAME], "computes one dense vector", id="two passages"),
        pytest.param([10 * SAME, SAME, 10 * NEAR], "computes one dense vector", id="lengths say nothing"),
        pytest.param(around_the_clock(32), None, id="all differ"),
        pytest.param([SAME] * 12 + around_the_clock(20), None, id="a dozen that are cut to the same tokens"),
        pytest.param([ZEROS, SAME, OTHER], None, id="one of zeros"),
    ],
)
def test_a_model_has_collapsed_also_if_some_passages_are_exceptions(
    vectors: list[np.ndarray], finding: str | None
) -> None:
    found = [] if finding is None else [finding]
    assert collapsed_heads([Encoded(vector) for vector in vectors]) == found
    tokens = [Encoded(around_the_clock(32)[i % 32], WEIGHT, np.stack([v] * 64)) for i, v in enumerate(vectors)]
    if len(vectors) > 3:
        assert collapsed_heads(tokens) == [each.replace("dense", "ColBERT") + " for all tokens" for each in found]


def test_sparse_weights_have_collapsed_if_most_passages_have_none() -> None:
    texts = [Encoded(vector, NOTHING if i else WEIGHT) for i, vector in enumerate(around_the_clock(32))]
    assert collapsed_heads(texts) == ["gives no token a sparse weight in 31 of them"]
    half = [Encoded(vector, NOTHING if i % 2 else WEIGHT) for i, vector in enumerate(around_the_clock(32))]
    assert collapsed_heads(half) == []


@pytest.mark.parametrize("cosine", [0.79, 0.99])
def test_vectors_as_close_as_those_of_real_models_have_not_collapsed(cosine: float) -> None:
    draw = np.random.default_rng(1)
    apart = draw.standard_normal((32, 384))
    apart /= np.linalg.norm(apart, axis=1, keepdims=True)
    common = draw.standard_normal(384)
    common /= np.linalg.norm(common)
    vectors = math.sqrt(cosine) * common + math.sqrt(1 - cosine) * apart
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.median(vectors @ vectors.T) == pytest.approx(cosine, abs=0.02)
    assert collapsed_heads([Encoded(vector.astype(np.float32)) for vector in vectors]) == []


@pytest.mark.parametrize(
    ("texts", "heads"),
    [
        ([Encoded(SAME), Encoded(NEAR)], ["computes one dense vector"]),
        ([Encoded(SAME), Encoded(NEAR), Encoded(OTHER)], []),
        ([Encoded(SAME, NOTHING), Encoded(OTHER, NOTHING)], ["gives no token a sparse weight"]),
        ([Encoded(SAME, NOTHING), Encoded(OTHER, WEIGHT)], []),
        ([Encoded(SAME, WEIGHT, np.stack([SAME, NEAR])), Encoded(OTHER, WEIGHT, np.stack([SAME]))],
         ["computes one ColBERT vector for all tokens"]),
        ([Encoded(SAME, WEIGHT, np.stack([SAME, OTHER])), Encoded(OTHER, WEIGHT, np.stack([SAME, OTHER]))], []),
    ],
)  # fmt: skip
def test_each_head_collapses_for_itself(texts: list[Encoded], heads: list[str]) -> None:
    assert collapsed_heads(texts) == heads


def test_a_collapse_is_judged_by_different_passages_and_never_by_one() -> None:
    examples = [Example("a", ("One", "one ")), Example("b", ("ONE",))]
    assert len(sample_passages(examples, E5, seed=0)) == 1
    assert describe_collapse(lambda texts: pytest.fail("one passage is always the same"), ["one"]) is None


@pytest.mark.parametrize(
    ("losses", "total", "stands"),
    [
        ([3.0, 1.0, 1.39, 1.38], 20, True),
        ([1.39, 1.39, 1.39, 9.0], 20, True),  # worse than guessing
        ([1.39, 1.39, 1.39, 1.2], 20, False),
        ([1.39, 1.39, 1.39, 1.39], 8, False),  # a few steps
        ([], 20, False),
    ],
)
def test_a_loss_that_ends_no_better_than_chance_is_reported(losses: list[float], total: int, stands: bool) -> None:
    lines: list[dict[str, Any]] = [{"type": "event", "message": "x"}]
    steps = [round(total * (i + 1) / len(losses)) for i in range(len(losses))]
    lines += [
        {"type": "progress", "step": s, "total_steps": total, "loss": x} for s, x in zip(steps, losses, strict=True)
    ]
    updates = [update for line in lines if (update := JobUpdate.of_line(line, now=0.0)) is not None]
    assert (describe_stalled_loss(updates, math.log(4)) is not None) is stands
