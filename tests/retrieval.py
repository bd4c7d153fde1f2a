"""Retrieval sets in BEIR layout, and how well they are answered."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class RetrievalSet:
    """Documents, queries, and for each query the positions of the documents that answer it."""

    documents: list[str]
    queries: list[str]
    relevant: list[set[int]]

    def first(self, count: int) -> tuple[RetrievalSet, list[int]]:
        """The first documents with the queries that all their answers are among, and which queries these are."""
        kept = [i for i, documents in enumerate(self.relevant) if max(documents) < count]
        part = RetrievalSet(self.documents[:count], [self.queries[i] for i in kept], [self.relevant[i] for i in kept])
        return part, kept


def load(folder: Path) -> RetrievalSet:
    """Reads a set in BEIR layout."""
    corpus = [json.loads(line) for line in (folder / "corpus.jsonl").open(encoding="utf-8")]
    texts = {q["_id"]: q["text"] for q in map(json.loads, (folder / "queries.jsonl").open(encoding="utf-8"))}
    place = {document["_id"]: i for i, document in enumerate(corpus)}
    relevant: dict[str, set[int]] = {}
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8") as rows:
        for row in csv.DictReader(rows, delimiter="\t"):
            relevant.setdefault(row["query-id"], set()).add(place[row["corpus-id"]])
    documents = [" ".join(filter(None, (d.get("title"), d["text"]))) for d in corpus]
    return RetrievalSet(documents, [texts[q] for q in relevant], list(relevant.values()))


def ndcg(scores: NDArray[np.float32], relevant: list[set[int]], k: int = 10) -> float:
    """Mean nDCG@k of a queries x documents matrix, with gains of 0 and 1."""
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    values = []
    for row, wanted in zip(scores, relevant, strict=True):
        top = np.argsort(-row, kind="stable")[:k]
        gain = sum(discount[rank] for rank, document in enumerate(top) if int(document) in wanted)
        values.append(gain / discount[: len(wanted)].sum())
    return float(np.mean(values))


def recall(scores: NDArray[np.float32], relevant: list[set[int]], k: int = 10) -> float:
    """Mean share of a query's documents that are among the first k of a queries x documents matrix."""
    tops = np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()
    return float(np.mean([len(wanted & set(top)) / len(wanted) for top, wanted in zip(tops, relevant, strict=True)]))


def only_the_best(scores: NDArray[np.float32], rescored: Sequence[Sequence[float]]) -> NDArray[np.float32]:
    """A second stage's scores for each query's best documents; all others come after them.

    Args:
        scores: float32 ``[queries, documents]``, what the documents were chosen by.
        rescored: For each query the scores of its first documents, best first.
    """
    out = np.full(scores.shape, -np.inf, np.float32)
    for row, values in enumerate(rescored):
        out[row, np.argsort(-scores[row], kind="stable")[: len(values)]] = values
    return out


def dot(query: Mapping[str, float], document: Mapping[str, float]) -> float:
    """The sparse score: the product of the weights, over the tokens that both have."""
    return sum(weight * document[token] for token, weight in query.items() if token in document)
