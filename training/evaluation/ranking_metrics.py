"""Metrics of a ranking. To add one, write a function of ``(hits, relevant)`` and list it in ``METRICS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
from numpy.typing import NDArray

from serve_app.domain.embeddings import Float32

DEPTH = 10
"""Documents of a ranking that metrics see."""

Hits = NDArray[np.float64]
"""``[min(DEPTH, documents)]``, best rank first: 1 for a document that answers the query, else 0."""


def ndcg(hits: Hits, relevant: int) -> float:
    """Normalised discounted cumulative gain, with gains of 0 and 1."""
    discount = 1.0 / np.log2(np.arange(2, DEPTH + 2))
    return float((hits * discount[: len(hits)]).sum() / discount[:relevant].sum())


def recall_at_1(hits: Hits, relevant: int) -> float:
    """Share of a query's answers that is found in the first place."""
    return float(hits[0] / relevant)


def recall(hits: Hits, relevant: int) -> float:
    """Share of a query's answers that is found."""
    return float(hits.sum() / relevant)


def reciprocal_rank(hits: Hits, relevant: int) -> float:
    """1 / rank of the first answer, 0 where none is found."""
    return 1.0 / (int(hits.argmax()) + 1) if hits.any() else 0.0


METRICS: Mapping[str, Callable[[Hits, int], float]] = {
    f"ndcg@{DEPTH}": ndcg,
    "recall@1": recall_at_1,
    f"recall@{DEPTH}": recall,
    f"mrr@{DEPTH}": reciprocal_rank,
}
"""Functions of a query's hits and its number of answers, by the name that reports and jobs show, which ends in
the cut-off."""


def ranking_metrics(scores: Float32, relevant: Sequence[AbstractSet[int]]) -> dict[str, float]:
    """The mean of each metric over the queries, rounded to six digits.

    Args:
        scores: float32 ``[queries, documents]``; of equal scores the first document ranks higher.
        relevant: For each query the columns of its answers, at least one.
    """
    rows = []
    for row, answers in zip(scores, relevant, strict=True):
        top = np.argsort(-row, kind="stable")[:DEPTH]
        hits = np.array([int(document) in answers for document in top], dtype=np.float64)
        rows.append([metric(hits, len(answers)) for metric in METRICS.values()])
    return {name: round(float(mean), 6) for name, mean in zip(METRICS, np.mean(rows, axis=0), strict=True)}
