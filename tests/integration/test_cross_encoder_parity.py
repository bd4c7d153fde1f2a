"""A served cross-encoder scores as transformers does with the same folder."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import CROSS_ENCODER, M3, M3_TINY
from tests.integration.m3_texts import TEXTS
from tests.service_process import Service

TOLERANCE = 1e-5  # float32, in another order
QUERIES = [TEXTS[0], "a", "敏捷的狐狸跳过了懒狗。"]
CANDIDATES = [*TEXTS, "a candidate of over four hundred tokens: " + "one more word " * 90]


@pytest.fixture(scope="module")
def logits(models_dir: Path) -> NDArray[np.float64]:
    """float64 ``[queries, candidates]``, each pair alone: transformers' tokenizer and model."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = models_dir / CROSS_ENCODER
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        rows = [[float(model(**tokenizer(q, c, return_tensors="pt")).logits) for c in CANDIDATES] for q in QUERIES]
    return np.array(rows)


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=120) as client:
        yield client


def scores(client: httpx.Client, query: str, candidates: list[str], **more: Any) -> list[float]:
    body = {"query": query, "candidates": candidates, "model": CROSS_ENCODER, "truncate": False, **more}
    reply = client.post("/rerank", json=body)
    assert reply.status_code == 200, reply.text
    found: list[float] = reply.json()["scores"]
    return found


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize("batch_size", [1, 2, 12])
def test_scores_are_the_sigmoid_of_the_logits_of_transformers(
    client: httpx.Client, logits: NDArray[np.float64], batch_size: int
) -> None:
    served = [scores(client, query, CANDIDATES, batch_size=batch_size) for query in QUERIES]
    np.testing.assert_allclose(served, sigmoid(logits), atol=TOLERANCE)


def test_without_normalize_the_logits_come_back(client: httpx.Client, logits: NDArray[np.float64]) -> None:
    served = [scores(client, query, CANDIDATES, normalize=False) for query in QUERIES]
    np.testing.assert_allclose(served, logits, atol=TOLERANCE)


def test_the_reference_tells_pairs_apart(logits: NDArray[np.float64]) -> None:
    """So that the agreement above means something."""
    assert np.ptp(sigmoid(logits), axis=1).min() > 1000 * TOLERANCE


def test_scores_are_right_under_16_concurrent_clients(client: httpx.Client, logits: NDArray[np.float64]) -> None:
    order = np.random.default_rng(3).integers(0, len(QUERIES) * len(CANDIDATES), 96)

    def ask(number: int) -> float:
        query, candidate = divmod(number, len(CANDIDATES))
        return scores(client, QUERIES[query], [CANDIDATES[candidate]], normalize=False)[0]

    with ThreadPoolExecutor(16) as clients:
        served = list(clients.map(ask, order.tolist()))
    np.testing.assert_allclose(served, logits.ravel()[order], atol=TOLERANCE)


def test_what_reads_pairs_can_not_be_explained_and_says_what_can(client: httpx.Client) -> None:
    reply = client.post("/rerank/explain", json={"query": "a", "candidate": "b", "model": CROSS_ENCODER})
    assert (reply.status_code, reply.json()["code"]) == (400, "capability_missing")
    assert f"{M3}, {M3_TINY}" in reply.json()["detail"]
