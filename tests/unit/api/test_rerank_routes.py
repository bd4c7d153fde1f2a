"""/rerank in all forms, /v1/rerank, /v2/rerank and /rerank/explain."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest

from serve_app.api.dialects.foreign_ranking import best_first
from serve_app.domain.errors import CapabilityError, InvalidInputError
from tests.unit.api.conftest import LIMITS
from tests.unit.api.fake_inference import FakeInference, score_of

QUERY = "cats"
JSON = {"Content-Type": "application/json"}


async def test_candidates_get_their_scores_in_their_order(client: httpx.AsyncClient, inference: FakeInference) -> None:
    candidates = ["bb", "a", "ccc", "a"]
    reply = await client.post("/rerank", json={"query": QUERY, "candidates": candidates})
    assert (reply.status_code, reply.json()) == (200, {"scores": [score_of(c) for c in candidates]})
    (asked,) = inference.reranks
    assert (asked.query, asked.candidates, asked.batch_size, asked.normalize) == (QUERY, candidates, 12, True)


async def test_options_reach_the_service(client: httpx.AsyncClient, inference: FakeInference) -> None:
    options = {"batch_size": 3, "normalize": False, "model": "my-m3", "truncate": False}
    await client.post("/rerank", json={"query": QUERY, "candidates": ["a"], **options})
    (asked,) = inference.reranks
    assert (asked.batch_size, asked.normalize) == (3, False)
    assert (asked.options.model, asked.options.truncate) == ("my-m3", False)


async def test_no_candidates_get_no_scores_without_any_work(
    client: httpx.AsyncClient, inference: FakeInference
) -> None:
    reply = await client.post("/rerank", json={"query": QUERY, "candidates": []})
    assert (reply.json(), inference.reranks) == ({"scores": []}, [])
    reply = await client.post("/rerank", json={"query": QUERY, "documents": []})
    assert (reply.json()["results"], inference.reranks) == ([], [])


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
async def test_documents_come_back_sorted_with_their_places(client: httpx.AsyncClient, path: str) -> None:
    reply = await client.post(path, json={"query": QUERY, "documents": ["bb", "a", {"text": "ccc", "page": 7}]})
    body = reply.json()
    expected = [(2, score_of("ccc")), (0, score_of("bb")), (1, score_of("a"))]
    assert [(r["index"], r["relevance_score"]) for r in body["results"]] == expected
    assert all("document" not in result for result in body["results"])
    assert (body["model"], body["usage"]) == ("my-m3", {"prompt_tokens": 9, "total_tokens": 9})
    assert body["data"] == body["results"]
    tokens = {"input_tokens": 9, "output_tokens": 0}
    version = "1" if path == "/v1/rerank" else "2"
    expected_meta = {"api_version": {"version": version}, "billed_units": {"search_units": 1}, "tokens": tokens}
    assert body["meta"] == expected_meta
    assert body["id"]


async def test_the_best_documents_come_back_whole_when_asked_for(client: httpx.AsyncClient) -> None:
    documents = ["bb", "a", {"text": "ccc", "page": 7}]
    reply = await client.post(
        "/rerank", json={"query": QUERY, "documents": documents, "top_n": 2, "return_documents": True}
    )
    assert [result["document"] for result in reply.json()["results"]] == [{"text": "ccc", "page": 7}, {"text": "bb"}]


@pytest.mark.parametrize("number", [10**30, -(2**64)])
async def test_a_document_is_returned_with_all_of_its_json(client: httpx.AsyncClient, number: int) -> None:
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    document = {"text": "a", "number": number, "half": "\ud800", "deep": deep, "nothing": None}
    body = json.dumps({"query": QUERY, "documents": [document], "return_documents": True})
    reply = await client.post("/rerank", content=body, headers=JSON)
    assert (reply.status_code, reply.json()["results"][0]["document"]) == (200, document)


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e999"])
async def test_a_document_that_json_cannot_encode_is_named(client: httpx.AsyncClient, number: bytes) -> None:
    body = b'{"query": "a", "documents": ["b", {"text": "c", "n": %b}], "return_documents": true}' % number
    reply = await client.post("/v2/rerank", content=body, headers=JSON)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith("documents[1]: holds NaN, infinity")
    reply = await client.post("/v2/rerank", content=body.replace(b"true", b"false"), headers=JSON)
    assert reply.status_code == 200


def test_equal_scores_keep_the_order_of_the_documents() -> None:
    assert best_first(np.array([0.5, 0.7, 0.5, 0.7], np.float32)) == [1, 3, 0, 2]


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/rerank", {"query": " ", "candidates": ["a"]}, "query"),
        ("/rerank", {"query": QUERY, "candidates": ["a", ""]}, "candidates[1]"),
        ("/rerank", {"query": QUERY, "candidates": "a"}, "candidates"),
        ("/rerank", {"query": QUERY, "candidates": ["a"] * (LIMITS.max_candidates + 1)}, "candidates"),
        ("/rerank", {"query": QUERY, "candidates": ["a"], "batch_size": 0}, "batch_size"),
        ("/rerank", {"query": QUERY, "candidates": ["a"], "batch_size": 10**9}, "batch_size"),
        ("/rerank", {"query": QUERY, "candidates": ["a"], "documents": ["a"]}, "candidates"),
        ("/rerank", {"query": QUERY}, "candidates"),
        ("/rerank", {"query": QUERY, "documents": ["a", {"txt": "b"}]}, "documents[1]"),
        ("/rerank", {"query": QUERY, "documents": ["a", {"text": ""}]}, "documents[1]"),
        ("/v2/rerank", {"query": QUERY, "documents": ["a"], "top_n": 0}, "top_n"),
        ("/v1/rerank", {"query": QUERY, "candidates": ["a"]}, "candidates"),
        ("/rerank/explain", {"query": QUERY, "candidate": ""}, "candidate"),
        ("/vectorize-hybrid", {"text": ""}, "text"),
        ("/vectorize-batch-hybrid", {"items": ["a", 5]}, "items[1]"),
    ],
)
async def test_a_violation_of_the_schema_or_a_limit_is_named(
    client: httpx.AsyncClient, inference: FakeInference, path: str, body: dict[str, Any], named: str
) -> None:
    reply = await client.post(path, json=body)
    foreign = "documents" in body or path.startswith(("/v1/", "/v2/"))
    assert reply.status_code == (400 if foreign else 422)
    assert named in reply.text
    assert (inference.asked, inference.reranks) == ([], [])


@pytest.mark.parametrize(("item", "named"), [(1, "candidates[1]: too long"), (-1, "query: too long")])
async def test_a_text_at_fault_is_named_as_the_client_knows_it(
    client: httpx.AsyncClient, inference: FakeInference, item: int, named: str
) -> None:
    inference.error = InvalidInputError("too long", item=item)
    reply = await client.post("/rerank", json={"query": QUERY, "candidates": ["a", "b"]})
    assert (reply.status_code, reply.json()["detail"]) == (422, named)


async def test_a_model_without_the_capability_is_a_400(client: httpx.AsyncClient, inference: FakeInference) -> None:
    inference.error = CapabilityError("'my-e5' does not support hybrid vectors")
    for path, body in [("/vectorize-hybrid", {"text": "a"}), ("/rerank/explain", {"query": "a", "candidate": "b"})]:
        reply = await client.post(path, json=body)
        assert (reply.status_code, reply.json()["code"]) == (400, "capability_missing")


async def test_an_explanation_names_the_best_match_of_every_query_token(client: httpx.AsyncClient) -> None:
    reply = await client.post("/rerank/explain", json={"query": "big cats", "candidate": "a lion"})
    body = reply.json()
    assert (body["query_tokens"], body["candidate_tokens"]) == (["big", "cats"], ["a", "lion"])
    assert [(m["query_token"], m["candidate_token"], m["similarity"]) for m in body["matches"]] == [
        ("big", "lion", 0.5),
        ("cats", "lion", 0.625),
    ]
    assert body["score"] == pytest.approx(0.5625)


async def test_models_are_listed_and_found_by_names_with_a_slash(client: httpx.AsyncClient) -> None:
    models = (await client.get("/models")).json()["models"]
    assert [(m["name"], m["serves"]) for m in models] == [("my-e5", ["embed"]), ("me/my-m3", ["embed", "rerank"])]
    assert (await client.get("/models/me/my-m3")).json() == models[1]
    missing = await client.get("/models/nobody")
    assert (missing.status_code, missing.json()["code"]) == (404, "model_not_found")


async def test_an_explanation_lists_cut_texts(client: httpx.AsyncClient, inference: FakeInference) -> None:
    inference.truncated = [-1, 0]
    reply = await client.post("/rerank/explain", json={"query": "big cats", "candidate": "a lion"})
    assert reply.headers["X-Truncated"] == "-1,0"


@pytest.mark.parametrize(("item", "named"), [(0, "candidate: too long"), (-1, "query: too long")])
async def test_the_text_at_fault_of_an_explanation_is_named(
    client: httpx.AsyncClient, inference: FakeInference, item: int, named: str
) -> None:
    inference.error = InvalidInputError("too long", item=item)
    reply = await client.post("/rerank/explain", json={"query": "a", "candidate": "b"})
    assert (reply.status_code, reply.json()["detail"]) == (422, named)


@pytest.mark.parametrize("field", ["candidates", "documents", "texts"])
@pytest.mark.parametrize("name", [r"\ud83d", "nobody"])
async def test_an_unknown_model_is_unknown_without_candidates_too(
    client: httpx.AsyncClient, field: str, name: str
) -> None:
    body = f'{{"query": "a", "{field}": [], "model": "{name}"}}'
    reply = await client.post("/rerank", content=body, headers=JSON)
    assert reply.status_code == 404
    assert '"model_not_found"' in reply.text


async def test_a_reply_without_results_names_the_model_that_was_asked_for(client: httpx.AsyncClient) -> None:
    reply = await client.post("/v2/rerank", json={"query": "a", "documents": [], "model": "me/my-m3"})
    assert (reply.json()["model"], reply.json()["results"]) == ("me/my-m3", [])
