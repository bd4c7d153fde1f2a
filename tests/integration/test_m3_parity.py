"""What a served BGE-M3 computes is what FlagEmbedding computes on the same folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest

from tests.conftest import M3, M3_TINY
from tests.integration.m3_texts import COSINE, LONG, TEXTS, WEIGHT, assert_same, cosines
from tests.m3_reference import M3Reference, M3Vectors
from tests.service_process import Service

QUERY = 0  # its place among the texts


@dataclass(frozen=True)
class Model:
    """A served model, its texts, and what the reference computes for them, each alone.

    Attributes:
        scores: The reference's score of each text for the first one.
    """

    name: str
    texts: list[str]
    expected: M3Vectors
    scores: list[float]


@pytest.fixture(scope="module", params=[M3, M3_TINY])
def model(request: pytest.FixtureRequest, m3_reference: Callable[[str], M3Reference]) -> Model:
    """With long texts, over 2,000 tokens each: one for the starter model, to which they are seconds of work."""
    name = request.param
    texts = TEXTS + (LONG[:1] if name == M3 else LONG)
    reference = m3_reference(name)
    expected = reference.encode(texts, batch_size=1)
    assert min(map(len, expected.colbert[len(TEXTS) :])) > 2000
    scores = [reference.colbert_score(expected.colbert[QUERY], each) for each in expected.colbert]
    return Model(name, texts, expected, scores)


@pytest.fixture(scope="module")
def client(service: Service, four_bits_ahead: None) -> Iterator[httpx.Client]:
    """A fine-tune is trained beside these tests."""
    with httpx.Client(base_url=service.url, timeout=120) as client:
        yield client


def post(client: httpx.Client, path: str, **body: Any) -> Any:
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text[:300]
    return reply.json()


def test_each_text_alone_equals_the_reference(client: httpx.Client, model: Model) -> None:
    for i, text in enumerate(model.texts):
        reply = post(client, "/vectorize-hybrid", text=text, return_colbert=True, model=model.name)
        assert reply["hybrid_vector"]["colbert"] is not None
        assert_same(reply["hybrid_vector"], model.expected, i)


def test_all_texts_in_one_list_equal_the_reference(client: httpx.Client, model: Model) -> None:
    """Lengths from one token to thousands, so that most of them are padded."""
    reply = post(client, "/vectorize-batch-hybrid", items=model.texts, return_colbert=True, model=model.name)
    for i, served in enumerate(reply["hybrid_vectors"]):
        assert served["colbert"] is not None
        assert_same(served, model.expected, i)
    assert len(reply["hybrid_vectors"]) == len(model.texts)


def test_the_dense_route_gives_the_same_vectors_for_queries_and_passages(client: httpx.Client, model: Model) -> None:
    """BGE-M3 has no prefixes."""
    for is_query in (True, False):
        reply = post(client, "/vectorize-batch", items=TEXTS, is_query=is_query, model=model.name)
        assert cosines(np.array(reply["vectors"], np.float32), model.expected.dense[: len(TEXTS)]).min() > COSINE


def test_rerank_equals_colbert_score_of_the_reference(client: httpx.Client, model: Model) -> None:
    query = model.texts[QUERY]
    together = post(client, "/rerank", query=query, candidates=model.texts, model=model.name)["scores"]
    np.testing.assert_allclose(together, model.scores, atol=WEIGHT)
    short = range(len(TEXTS))
    alone = [post(client, "/rerank", query=query, candidates=[TEXTS[i]], model=model.name, batch_size=1) for i in short]
    np.testing.assert_allclose([reply["scores"][0] for reply in alone], model.scores[: len(TEXTS)], atol=WEIGHT)


def test_the_reference_tells_candidates_apart(model: Model) -> None:
    """So that the agreement above means something."""
    assert np.ptp(model.scores) > 1000 * WEIGHT


def test_mixed_wants_under_16_concurrent_clients_equal_the_reference(service: Service, model: Model) -> None:
    """Texts that want dense vectors, all of them, or a score meet in the same micro-batches."""
    texts, query = TEXTS, model.texts[QUERY]

    with httpx.Client(base_url=service.url, timeout=120) as client:

        def ask(number: int) -> None:
            i, want = number // 4 % len(texts), number % 4
            if want == 0:
                vector = post(client, "/vectorize", text=texts[i], model=model.name)["vector"]
                assert cosines(np.array(vector, np.float32), model.expected.dense[i]) > COSINE
            elif want == 1:
                scores = post(client, "/rerank", query=query, candidates=texts[i : i + 3], model=model.name)["scores"]
                np.testing.assert_allclose(scores, model.scores[: len(texts)][i : i + 3], atol=WEIGHT)
            else:
                body = {"text": texts[i], "return_colbert": want == 3, "model": model.name}
                served = post(client, "/vectorize-hybrid", **body)["hybrid_vector"]
                assert (served["colbert"] is not None) == (want == 3)
                assert_same(served, model.expected, i)

        order = np.random.default_rng(7).permutation(4 * len(texts) * (1 if model.name == M3 else 4))
        with ThreadPoolExecutor(16) as clients:
            list(clients.map(ask, order.tolist()))


@pytest.mark.parametrize("candidate", [1, 6, 10])
def test_an_explanation_adds_up_to_the_score(client: httpx.Client, model: Model, candidate: int) -> None:
    asked = {"query": model.texts[QUERY], "model": model.name}
    explained = post(client, "/rerank/explain", candidate=model.texts[candidate], **asked)
    similarities = [match["similarity"] for match in explained["matches"]]
    scores = {
        normalize: post(client, "/rerank", candidates=[model.texts[candidate]], normalize=normalize, **asked)["scores"]
        for normalize in (True, False)
    }
    assert scores[True] == pytest.approx([np.mean(similarities)], abs=1e-5)
    assert scores[True] == pytest.approx([explained["score"]], abs=1e-5)
    assert scores[False] == pytest.approx([np.sum(similarities)], abs=1e-4)


def test_an_explanation_names_the_tokens_that_the_reference_finds(client: httpx.Client, model: Model) -> None:
    query, candidate = model.expected.colbert[QUERY], model.expected.colbert[1]
    body = {"query": model.texts[QUERY], "candidate": model.texts[1], "model": model.name}
    explained = post(client, "/rerank/explain", **body)
    assert (len(explained["query_tokens"]), len(explained["candidate_tokens"])) == (len(query), len(candidate))
    for row, match in zip(query @ candidate.T, explained["matches"], strict=True):
        assert match["similarity"] == pytest.approx(row.max(), abs=WEIGHT)
        assert row[match["candidate_index"]] == pytest.approx(row.max(), abs=WEIGHT)
