"""How well a served BGE-M3 retrieves with each of its representations, measured through HTTP.

    python -m benchmarks.retrieval_quality --url http://localhost:8000 --data FOLDER

``FOLDER`` has the layout of BEIR: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/test.tsv``. Every document is scored
with the dense and the sparse vectors; the dense best are then reranked with ``/rerank``. Prints a markdown table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from tests.retrieval import RetrievalSet, dot, load, ndcg, only_the_best, recall

Scores = NDArray[np.float32]  # [queries, documents]

_CHUNK = 32  # texts in a request
_TIMEOUT_S = 600
_SPARSE_WEIGHT = 0.3  # of a sparse score beside a dense one: a round number, not fitted to any set


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        method: What the documents were ordered by.
        ndcg: nDCG@10.
        recall: recall@10.
    """

    method: str
    ndcg: float
    recall: float


def measure(
    service: httpx.Client, data: RetrievalSet, *, model: str | None, top: int, sparse_weight: float
) -> Iterator[Row]:
    """Each row when it is known: the last one takes by far the longest.

    Args:
        service: Where the service answers.
        data: What to search.
        model: A served name; None for the default of the routes.
        top: Documents of each query to rerank.
        sparse_weight: Of the sparse score in the sum with the dense one.
    """
    queries, documents = _hybrid(service, data.queries, model), _hybrid(service, data.documents, model)
    dense = _dense(queries) @ _dense(documents).T
    sparse = np.array([[dot(q["sparse"], d["sparse"]) for d in documents] for q in queries], np.float32)
    yield _row("dense", dense, data)
    yield _row("sparse", sparse, data)
    yield _row(f"dense + {sparse_weight:g} × sparse", dense + sparse_weight * sparse, data)
    rescored = []
    for number, (query, scores) in enumerate(zip(data.queries, dense, strict=True), 1):
        best = np.argsort(-scores, kind="stable")[:top].tolist()
        body = {"query": query, "candidates": [data.documents[i] for i in best], "model": model}
        rescored.append(_post(service, "/rerank", body)["scores"])
        if sys.stderr.isatty():
            print(f"reranked {number} of {len(data.queries)} queries", end="\r", file=sys.stderr)
    yield _row(f"ColBERT rerank of the dense top {top}", only_the_best(dense, rescored), data)


def _row(method: str, scores: Scores, data: RetrievalSet) -> Row:
    return Row(method, ndcg(scores, data.relevant), recall(scores, data.relevant))


def _hybrid(service: httpx.Client, texts: Sequence[str], model: str | None) -> list[dict[str, Any]]:
    """Dense and sparse vectors of the texts, in their order."""
    found: list[dict[str, Any]] = []
    for start in range(0, len(texts), _CHUNK):
        body = {"items": list(texts[start : start + _CHUNK]), "model": model}
        found += _post(service, "/vectorize-batch-hybrid", body)["hybrid_vectors"]
    return found


def _dense(vectors: Sequence[dict[str, Any]]) -> Scores:
    return np.array([vector["dense"] for vector in vectors], np.float32)


def _post(service: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    reply = service.post(path, json=body)
    if reply.status_code != 200:
        raise SystemExit(f"{path}: {reply.status_code} {reply.text[:300]}")
    return reply.json()


def main(arguments: Sequence[str]) -> None:
    """Prints the table, line by line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval_quality", description=__doc__.split("\n")[0])
    parser.add_argument("--url", default="http://localhost:8000", help="where the service answers")
    parser.add_argument("--data", type=Path, required=True, help="a folder in BEIR layout")
    parser.add_argument("--model", help="a served BGE-M3 that also reranks; the default of the routes if absent")
    parser.add_argument("--top", type=int, default=50, help="documents of each query to rerank (%(default)s)")
    parser.add_argument("--sparse-weight", type=float, default=_SPARSE_WEIGHT, help="in the sum (%(default)s)")
    options = parser.parse_args(arguments)
    data = load(options.data)
    print(f"{len(data.queries)} queries, {len(data.documents)} documents\n", flush=True)
    print("| order by | nDCG@10 | recall@10 |\n|---|---:|---:|", flush=True)
    with httpx.Client(base_url=options.url, timeout=_TIMEOUT_S) as service:
        rows = measure(service, data, model=options.model, top=options.top, sparse_weight=options.sparse_weight)
        for row in rows:
            print(f"| {row.method} | {row.ndcg:.3f} | {row.recall:.3f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
