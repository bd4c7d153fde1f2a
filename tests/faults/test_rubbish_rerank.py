"""The hybrid and rerank routes: whatever is sent, the right status comes back and nothing else is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.conftest import CROSS_ENCODER, E5_BFLOAT16, M3, M3_TINY
from tests.service_process import STARTER, Service

RERANKERS = f"{M3}, {M3_TINY}, {CROSS_ENCODER}"
JSON = {"Content-Type": "application/json"}
TOO_LONG = "word " * 8200  # tokens; over the limit of either kind of reranker
CANDIDATES = ["a", "logrotate rotates log files", "a", "cron runs jobs", "a"]


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    """Every test ends with the same scores as before."""

    def usual() -> list[list[float]]:
        return [scores(client, candidates=CANDIDATES, model=model) for model in (M3_TINY, CROSS_ENCODER)]

    with httpx.Client(base_url=service.url, timeout=120) as client:
        before = usual()
        yield client
        for found, expected in zip(usual(), before, strict=True):
            assert found == pytest.approx(expected, abs=1e-4)


def ask(client: httpx.Client, path: str, **body: Any) -> httpx.Response:
    needed = {"query": "log"} if "rerank" in path else {}
    return client.post(path, json={**needed, **body})


def scores(client: httpx.Client, **body: Any) -> list[float]:
    reply = ask(client, "/rerank", **body)
    assert reply.status_code == 200, reply.text[:300]
    found: list[float] = reply.json()["scores"]
    return found


def problem(client: httpx.Client, path: str, status: int, **body: Any) -> str:
    reply = ask(client, path, **body)
    assert reply.status_code == status, reply.text[:300]
    return told(reply)


def told(reply: httpx.Response) -> str:
    """What an error says; below /v1 and /v2 it has OpenAI's shape."""
    body = reply.json()
    message: str = body["error"]["message"] if "error" in body else body["detail"]
    return message


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/vectorize-hybrid", {"text": "a"}),
        ("/vectorize-batch-hybrid", {"items": ["a"]}),
        ("/rerank", {"candidates": ["a"]}),
        ("/rerank", {"documents": ["a"]}),
        ("/v1/rerank", {"documents": ["a"]}),
        ("/v2/rerank", {"documents": ["a"]}),
        ("/rerank/explain", {"candidate": "a"}),
    ],
)
def test_an_unknown_model_is_404_and_names_the_served_ones(
    client: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    detail = problem(client, path, 404, model="gpt-9", **body)
    assert "'gpt-9'" in detail
    assert M3_TINY in detail
    assert STARTER in detail


def test_models_answers_404_for_a_model_that_is_not_served(client: httpx.Client) -> None:
    assert client.get("/models/gpt-9").status_code == 404
    assert client.get(f"/models/{CROSS_ENCODER}").json()["serves"] == ["rerank"]


@pytest.mark.parametrize("model", [STARTER, E5_BFLOAT16, CROSS_ENCODER])
def test_hybrid_vectors_of_a_model_without_are_400_and_name_the_models_that_can(
    client: httpx.Client, model: str
) -> None:
    for path, body in (("/vectorize-hybrid", {"text": "a"}), ("/vectorize-batch-hybrid", {"items": ["a"]})):
        assert f"do: {M3}, {M3_TINY}" in problem(client, path, 400, model=model, **body)


def test_reranking_by_a_model_that_only_embeds_is_400_and_names_the_rerankers(client: httpx.Client) -> None:
    for body in ({"candidates": ["a"]}, {"documents": ["a"]}):
        assert f"do: {RERANKERS}" in problem(client, "/rerank", 400, model=STARTER, **body)


def test_embedding_by_a_model_that_only_reranks_is_400(client: httpx.Client) -> None:
    detail = problem(client, "/vectorize", 400, text="a", model=CROSS_ENCODER)
    assert f"do: {STARTER}, {E5_BFLOAT16}, {M3}, {M3_TINY}" in detail


def test_no_candidates_get_no_scores(client: httpx.Client) -> None:
    assert scores(client, candidates=[]) == []
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        assert ask(client, path, documents=[]).json()["results"] == []


def test_ten_thousand_candidates_are_refused_and_a_request_beside_them_is_answered(client: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as clients:
        refused = [clients.submit(problem, client, "/rerank", 422, candidates=["a"] * 10_000) for _ in range(8)]
        served = [clients.submit(scores, client, candidates=CANDIDATES, model=M3_TINY) for _ in range(8)]
    assert {each.result() for each in refused} == {"candidates: 10000 texts, the limit is 2048; send several requests"}
    assert {len(each.result()) for each in served} == {len(CANDIDATES)}


def test_as_many_candidates_as_allowed_are_scored_in_their_order(client: httpx.Client) -> None:
    candidates = [f"candidate {i % 97}" for i in range(2048)]
    for model in (M3_TINY, CROSS_ENCODER):
        found = scores(client, candidates=candidates, model=model, batch_size=1_000_000)
        assert found[:97] * 21 + found[:11] == found


def test_a_candidate_over_the_character_limit_is_named(client: httpx.Client) -> None:
    detail = problem(client, "/rerank", 422, candidates=["a", "x" * 200_001])
    assert detail == "candidates[1]: 200001 characters, the limit is 200000; split the text"


@pytest.mark.parametrize(("model", "limit"), [(M3_TINY, 8192), (CROSS_ENCODER, 512)])
def test_a_candidate_over_the_token_limit_is_refused_or_cut_and_named(
    client: httpx.Client, model: str, limit: int
) -> None:
    candidates = ["a", "a", TOO_LONG, "b", TOO_LONG]
    detail = problem(client, "/rerank", 422, candidates=candidates, truncate=False, model=model)
    assert detail.startswith("candidates[2]: ")
    assert f"the model's limit is {limit};" in detail
    reply = ask(client, "/rerank", candidates=candidates, model=model)
    assert (reply.status_code, len(reply.json()["scores"])) == (200, 5)
    assert (reply.headers["X-Truncated"], reply.headers["X-Truncated-Count"]) == ("2,4", "2")


@pytest.mark.parametrize(("model", "cut"), [(M3_TINY, "-1"), (CROSS_ENCODER, "0,1")])
def test_a_query_over_the_token_limit_is_named(client: httpx.Client, model: str, cut: str) -> None:
    """A cross-encoder's query is cut in every pair."""
    body = {"query": TOO_LONG, "candidates": ["a", "b"], "model": model}
    assert problem(client, "/rerank", 422, truncate=False, **body).startswith("query: ")
    assert ask(client, "/rerank", **body).headers["X-Truncated"] == cut


def test_an_explanation_says_which_text_was_cut(client: httpx.Client) -> None:
    reply = ask(client, "/rerank/explain", candidate=TOO_LONG, model=M3_TINY)
    assert (reply.status_code, reply.headers["X-Truncated"]) == (200, "0")
    detail = problem(client, "/rerank/explain", 422, candidate=TOO_LONG, model=M3_TINY, truncate=False)
    assert detail.startswith("candidate: ")


@pytest.mark.parametrize("size", [0, -1, 10**9, 1.5, "12"])
def test_a_batch_size_that_makes_no_sense_is_named(client: httpx.Client, size: object) -> None:
    assert problem(client, "/rerank", 422, batch_size=size, candidates=["a"]).startswith("batch_size: ")
    assert problem(client, "/rerank", 400, batch_size=size, documents=["a"]).startswith("batch_size: ")


def test_a_batch_size_of_null_is_none_for_other_services_clients_alone(client: httpx.Client) -> None:
    assert problem(client, "/rerank", 422, batch_size=None, candidates=["a"]).startswith("batch_size: ")
    assert ask(client, "/rerank", batch_size=None, documents=["a"]).status_code == 200


def test_colbert_vectors_over_the_limit_of_a_reply_are_422_and_say_how_to_ask_for_less(client: httpx.Client) -> None:
    detail = problem(client, "/vectorize-batch-hybrid", 422, items=[TOO_LONG] * 3, return_colbert=True, model=M3)
    assert "24576 tokens of 384 numbers" in detail
    assert "send fewer or shorter texts at once (up to 21845 tokens), or do without" in detail


def test_a_candidate_that_stands_three_times_has_the_same_score_three_times(client: httpx.Client) -> None:
    for model in (M3_TINY, CROSS_ENCODER):
        found = scores(client, candidates=CANDIDATES, model=model)
        assert found[0] == found[2] == found[4]
        assert len(set(found)) == 3


def test_one_blank_candidate_is_named(client: httpx.Client) -> None:
    assert problem(client, "/rerank", 422, candidates=["a", "a", " \n"]).startswith("candidates[2]: must not be empty")
    assert problem(client, "/v2/rerank", 400, documents=["a", {"text": ""}]).startswith("documents[1]: must not be")
    assert problem(client, "/rerank", 422, query="", candidates=["a"]).startswith("query: must not be empty")


def test_a_document_comes_back_whole_whatever_it_holds_beside_its_text(client: httpx.Client) -> None:
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    document = {"text": "a", "number": 10**30, "half": "\ud800", "deep": deep, "nothing": None}
    body = {"query": "a", "documents": ["b", document], "return_documents": True, "model": M3_TINY}
    reply = client.post("/v2/rerank", content=json.dumps(body), headers=JSON)
    assert document in [result["document"] for result in reply.json()["results"]]


def test_a_document_that_no_json_can_give_back_is_named(client: httpx.Client) -> None:
    body = b'{"query": "a", "documents": ["b", {"text": "c", "n": NaN}], "return_documents": true}'
    reply = client.post("/v1/rerank", content=body, headers=JSON)
    assert reply.status_code == 400
    assert told(reply).startswith("documents[1]: ")


def test_a_deadline_that_can_not_be_kept_is_408(client: httpx.Client) -> None:
    body = {"query": "a", "candidates": [f"{i} {TOO_LONG[:5000]}" for i in range(40)], "model": M3}
    reply = client.post("/rerank", json=body, headers={"X-Request-Timeout-Seconds": "0.5"})
    assert (reply.status_code, reply.json()["code"]) == (408, "deadline_passed")
