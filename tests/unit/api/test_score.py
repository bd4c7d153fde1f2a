"""/score and /v1/score of vLLM: one query with many documents, or pairs."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from serve_app.api.dialects.vllm import score_routes
from serve_app.api.inference_results import Ranked
from serve_app.domain.errors import InvalidInputError, QueueFullError
from tests.unit.api.conftest import LIMITS
from tests.unit.api.fake_inference import FakeInference, score_of

MANY = ["bb", "a", "ccc"]


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize(
    "body",
    [
        {"text_1": "cats", "text_2": MANY},
        {"text_1": ["cats"], "text_2": MANY},
        {"queries": "cats", "documents": MANY},
        {"data_1": "cats", "data_2": [{"text": text} for text in MANY]},
    ],
)
async def test_one_query_is_scored_against_many_documents_in_their_order(
    client: httpx.AsyncClient, inference: FakeInference, path: str, body: dict[str, Any]
) -> None:
    reply = (await client.post(path, json=body | {"model": "my-m3"})).json()
    assert reply["data"] == [{"index": i, "object": "score", "score": score_of(MANY[i])} for i in range(3)]
    assert (reply["object"], reply["model"], reply["usage"]) == (
        "list",
        "my-m3",
        {"prompt_tokens": 9, "total_tokens": 9},
    )
    (asked,) = inference.reranks
    assert (asked.query, asked.candidates, asked.options.model) == ("cats", MANY, "my-m3")


async def test_pairs_are_scored_in_their_order_and_queries_that_are_alike_together(
    client: httpx.AsyncClient, inference: FakeInference
) -> None:
    body = {"text_1": ["cats", "dogs", "cats"], "text_2": MANY}
    reply = (await client.post("/v1/score", json=body)).json()
    assert [one["score"] for one in reply["data"]] == [score_of(text) for text in MANY]
    assert sorted((asked.query, asked.candidates) for asked in inference.reranks) == [
        ("cats", ["bb", "ccc"]),
        ("dogs", ["a"]),
    ]
    assert reply["usage"]["total_tokens"] == 18


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"text_1": "a"}, "text_2: field required"),
        ({"text_1": ["a", "b"], "text_2": MANY}, "text_1: 2 texts for 3 of text_2"),
        ({"text_1": MANY, "text_2": "a"}, "text_1: 3 texts for 1 of text_2"),
        ({"text_1": "a", "text_2": []}, "text_2: must not be empty"),
        ({"text_1": ["a", ""], "text_2": ["b", "c"]}, "text_1[1]: must not be empty"),
        ({"text_1": "a", "text_2": ["b", ""]}, "text_2[1]: must not be empty"),
        ({"text_1": "a", "text_2": ["b", 5]}, "text_2[1]: input should be a valid string"),
        ({"queries": 5, "documents": "a"}, "queries: input should be a valid list"),
        ({"text_1": "a", "text_2": ["b"] * (LIMITS.max_candidates + 1)}, "text_2: 2049 texts"),
    ],
)
async def test_lists_that_make_no_pairs_are_named(
    client: httpx.AsyncClient, inference: FakeInference, body: dict[str, Any], message: str
) -> None:
    reply = await client.post("/score", json=body)
    assert (reply.status_code, inference.reranks) == (400, [])
    assert reply.json()["error"]["message"].startswith(message)


@pytest.mark.parametrize(("item", "named"), [(1, "text_2[2]: "), (-1, "text_1[0]: "), (None, "too long")])
async def test_a_text_at_fault_is_named_by_its_place_in_the_request(
    client: httpx.AsyncClient, inference: FakeInference, item: int | None, named: str
) -> None:
    inference.error = InvalidInputError("too long", item=item)
    body = {"text_1": ["cats", "dogs", "cats"], "text_2": MANY}
    reply = await client.post("/score", json=body)
    assert reply.status_code == 400
    if item is None:
        assert reply.json()["detail"] == "too long"
    else:
        assert reply.json()["detail"].startswith(("text_2[", "text_1["))
    reply = await client.post("/score", json={"text_1": ["cats", "cats", "cats"], "text_2": MANY})
    assert reply.json()["detail"].startswith({1: "text_2[1]: "}.get(item or 0, named))


async def test_a_full_queue_is_429_and_cut_pairs_are_listed(
    client: httpx.AsyncClient, inference: FakeInference
) -> None:
    body = {"text_1": ["cats", "dogs", "cats"], "text_2": MANY}
    inference.truncated = [-1]
    assert (await client.post("/score", json=body)).headers["x-truncated"] == "0,1,2"
    inference.truncated = [0]
    assert (await client.post("/score", json=body)).headers["x-truncated"] == "0,1"
    inference.error = QueueFullError("full")
    assert (await client.post("/score", json=body)).status_code == 429


async def test_all_queries_share_one_deadline_and_one_limit_of_tokens(
    client: httpx.AsyncClient, inference: FakeInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, rerank = 100.0, inference.rerank

    async def slow(*args: Any, **more: Any) -> Ranked:
        nonlocal now
        now += 8
        return await rerank(*args, **more)

    monkeypatch.setattr(score_routes, "monotonic", lambda: now)
    monkeypatch.setattr(inference, "rerank", slow)
    queries = [f"query {i}" for i in range(5)]
    reply = await client.post("/score", json={"text_1": queries, "text_2": queries})
    assert (reply.status_code, reply.json()["detail"]) == (
        408,
        "not done within 30 s; the remaining work was dropped",
    )
    assert [(asked.query, asked.options.timeout_s) for asked in inference.reranks] == [
        (query, 30.0 - 8 * i) for i, query in enumerate(queries[:4])
    ]
    assert len({id(asked.options.total) for asked in inference.reranks}) == 1
    assert inference.reranks[0].options.total is not None
