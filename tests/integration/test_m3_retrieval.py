"""Retrieval over HTTP with each of BGE-M3's representations is as good as with FlagEmbedding in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import M3
from tests.m3_reference import M3Reference, M3Vectors
from tests.retrieval import DATA, RetrievalSet, dot, load, ndcg, only_the_best
from tests.service_process import Service

QUERIES, TOP, CHARS = 40, 20, 120
TOLERANCE = 0.005


@pytest.fixture(scope="module")
def data() -> RetrievalSet:
    """Forty questions among forty answers, of which the beginning: whole ones are minutes of reranking."""
    part, _ = load(DATA / "debfaq-en").first(QUERIES)
    assert len(part.queries) == QUERIES
    return RetrievalSet([document[:CHARS] for document in part.documents], part.queries, part.relevant)


@pytest.fixture(scope="module")
def local(data: RetrievalSet, m3_reference: Callable[[str], M3Reference]) -> tuple[M3Vectors, M3Vectors]:
    reference = m3_reference(M3)
    return reference.encode(data.queries), reference.encode(data.documents)


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def served(client: httpx.Client, data: RetrievalSet) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Hybrid vectors of the queries and of the documents."""

    def encode(texts: list[str]) -> list[dict[str, Any]]:
        reply = client.post("/vectorize-batch-hybrid", json={"items": texts, "model": M3})
        vectors: list[dict[str, Any]] = reply.json()["hybrid_vectors"]
        return vectors

    return encode(data.queries), encode(data.documents)


def dense_scores(queries: Any, documents: Any) -> NDArray[np.float32]:
    return np.asarray(queries, np.float32) @ np.asarray(documents, np.float32).T


def sparse_scores(queries: list[dict[str, float]], documents: list[dict[str, float]]) -> NDArray[np.float32]:
    return np.array([[dot(query, document) for document in documents] for query in queries], np.float32)


def test_dense(data: RetrievalSet, local: Any, served: Any) -> None:
    expected = ndcg(dense_scores(local[0].dense, local[1].dense), data.relevant)
    got = ndcg(dense_scores(*([item["dense"] for item in part] for part in served)), data.relevant)
    agree("dense", got, expected)


def test_sparse(data: RetrievalSet, local: Any, served: Any) -> None:
    expected = ndcg(sparse_scores(local[0].sparse, local[1].sparse), data.relevant)
    got = ndcg(sparse_scores(*([item["sparse"] for item in part] for part in served)), data.relevant)
    agree("sparse", got, expected)


def test_colbert_rerank_of_the_dense_top(
    client: httpx.Client, data: RetrievalSet, local: Any, served: Any, m3_reference: Callable[[str], M3Reference]
) -> None:
    score = m3_reference(M3).colbert_score
    first = dense_scores(local[0].dense, local[1].dense)
    tops = np.argsort(-first, axis=1, kind="stable")[:, :TOP]
    rescored = [[score(local[0].colbert[q], local[1].colbert[d]) for d in top] for q, top in enumerate(tops)]
    expected = ndcg(only_the_best(first, rescored), data.relevant)

    first = dense_scores(*([item["dense"] for item in part] for part in served))
    tops = np.argsort(-first, axis=1, kind="stable")[:, :TOP]

    def rerank(query: str, top: NDArray[np.int64]) -> list[float]:
        body = {"query": query, "candidates": [data.documents[d] for d in top], "model": M3}
        scores: list[float] = client.post("/rerank", json=body).json()["scores"]
        return scores

    rescored = [rerank(query, top) for query, top in zip(data.queries, tops, strict=True)]
    agree("ColBERT rerank", ndcg(only_the_best(first, rescored), data.relevant), expected)


def agree(what: str, got: float, expected: float) -> None:
    print(f"nDCG@10 {what}: served {got:.4f}, in process {expected:.4f}")
    assert expected > 0.4, "the starter model retrieves; chance is 0.11"
    assert abs(got - expected) <= TOLERANCE
