"""/v1/embeddings and /v1/models of the OpenAI API."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from serve_app.api.encoding import json_stream
from serve_app.api.model_states import ModelState
from serve_app.domain.embeddings import Float32
from serve_app.domain.errors import InvalidInputError
from serve_app.domain.profiles import TextRole
from tests.unit.api.conftest import LIMITS
from tests.unit.api.fake_inference import STATE, Asked, FakeInference, vector_of


def vectors_in(reply: httpx.Response) -> Float32:
    assert reply.status_code == 200, reply.text
    return np.array([item["embedding"] for item in reply.json()["data"]], np.float32)


async def test_the_reply_has_openais_fields_and_real_usage(client: httpx.AsyncClient, inference: FakeInference) -> None:
    reply = await client.post("/v1/embeddings", json={"model": "my-e5", "input": ["cats", "dogs"], "user": "me"})
    vectors = [[float(str(x)) for x in vector_of(text)] for text in ("cats", "dogs")]
    assert reply.json() == {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)],
        "model": "my-e5",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }
    assert inference.asked == [Asked(["cats", "dogs"], TextRole.PASSAGE, "my-e5", True, LIMITS.request_timeout_s)]


async def test_one_text_is_a_list_of_one(client: httpx.AsyncClient, inference: FakeInference) -> None:
    reply = await client.post("/v1/embeddings", json={"input": "cats", "input_type": "query"})
    assert len(vectors_in(reply)) == 1
    assert inference.asked[0].role is TextRole.QUERY


@pytest.mark.parametrize(
    ("more", "role"),
    [({}, TextRole.QUERY), ({"input_type": "passage"}, TextRole.PASSAGE), ({"input_type": None}, TextRole.QUERY)],
)
async def test_the_type_may_come_in_a_header_and_the_field_wins(
    client: httpx.AsyncClient, inference: FakeInference, more: dict[str, Any], role: TextRole
) -> None:
    headers = {"X-Input-Type": "query"}
    vectors_in(await client.post("/v1/embeddings", json={"input": "cats", **more}, headers=headers))
    assert inference.asked[0].role is role


async def test_a_header_with_another_type_is_refused(client: httpx.AsyncClient, inference: FakeInference) -> None:
    reply = await client.post("/v1/embeddings", json={"input": "cats"}, headers={"X-Input-Type": "image"})
    assert (reply.status_code, inference.asked) == (400, [])
    assert "X-Input-Type: input should be 'query', " in reply.json()["error"]["message"]


async def test_base64_is_the_same_numbers(client: httpx.AsyncClient) -> None:
    body = {"input": ["cats", "dogs"]}
    numbers = vectors_in(await client.post("/v1/embeddings", json=body))
    reply = await client.post("/v1/embeddings", json=body | {"encoding_format": "base64"})
    texts = [item["embedding"] for item in reply.json()["data"]]
    decoded = [np.frombuffer(base64.b64decode(text), "<f4") for text in texts]
    np.testing.assert_array_equal(decoded, numbers)


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_a_large_reply_is_the_same_in_pieces(
    client: httpx.AsyncClient, inference: FakeInference, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    body, inference.dimension = {"input": ["a", "b", "c", "d", "e"], "encoding_format": encoding}, 100
    whole = await client.post("/v1/embeddings", json=body)
    monkeypatch.setattr(json_stream, "_PIECE_FLOATS", 200)
    assert (await client.post("/v1/embeddings", json=body)).content == whole.content


async def test_fewer_dimensions_are_normalised_again(client: httpx.AsyncClient) -> None:
    vectors = vectors_in(await client.post("/v1/embeddings", json={"input": "cats", "dimensions": 2}))
    expected = vector_of("cats")[:2] / np.linalg.norm(vector_of("cats")[:2])
    np.testing.assert_allclose(vectors, [expected], atol=1e-6)


@pytest.mark.parametrize(("ids", "rows"), [([5, 7], [[5, 7]]), ([[5, 7], [8]], [[5, 7], [8]])])
async def test_token_ids_are_taken_as_they_are(
    client: httpx.AsyncClient, inference: FakeInference, ids: Any, rows: list[list[int]]
) -> None:
    reply = await client.post("/v1/embeddings", json={"input": ids, "truncate": False})
    assert len(vectors_in(reply)) == len(rows)
    assert inference.asked_ids == [rows]
    assert (inference.asked[0].role, inference.asked[0].truncate) == (None, False)


@pytest.mark.parametrize(("ids", "name"), [([5, 7], "input"), ([[5], [7]], "input[1]")])
async def test_ids_at_fault_are_named(client: httpx.AsyncClient, inference: FakeInference, ids: Any, name: str) -> None:
    inference.error = InvalidInputError("not in the vocabulary", item=len(ids) - 1)
    error = (await client.post("/v1/embeddings", json={"input": ids})).json()["error"]
    assert (error["message"], error["param"]) == (f"{name}: not in the vocabulary", name)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": 5}, "input"),
        ({"input": {"a": "b"}}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a", 5]}, "input[1]"),
        ({"input": [5, "a"]}, "input[1]"),
        ({"input": [True]}, "input[0]"),
        ({"input": [-1]}, "input[0]"),
        ({"input": [2**31]}, "input[0]"),
        ({"input": [[5], []]}, "input[1]"),
        ({"input": [[]]}, "input[0]"),
        ({"input": ["x"] * 6}, "input"),
        ({"input": [[5]] * 6}, "input"),
        ({"input": "a", "dimensions": -1}, "dimensions"),
        ({"input": "a", "dimensions": 5}, "dimensions"),
        ({"input": "a", "encoding_format": "md5"}, "encoding_format"),
        ({"input": [5], "input_type": "query"}, "input_type"),
        ({"input": "a", "late_chunking": True}, "late_chunking"),
    ],
)
async def test_a_violation_of_the_schema_or_a_limit_is_named(
    client: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    reply = await client.post("/v1/embeddings", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


async def test_models_are_listed_and_found_by_names_with_a_slash(
    client: httpx.AsyncClient, inference: FakeInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def models() -> list[ModelState]:
        tuned = ModelState("me/tuned", "e5", 4, 512, base="my-e5", created="2026-01-01T00:00:00+00:00")
        return [STATE, tuned, ModelState("foreign", "e5", 4, 512, created="yesterday")]

    monkeypatch.setattr(inference, "models", models)
    listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [(m["id"], m["object"], m["created"], m["parent"]) for m in listed["data"]] == [
        ("my-e5", "model", 0, None),
        ("me/tuned", "model", 1767225600, "my-e5"),
        ("foreign", "model", 0, None),
    ]
    for path in ("/v1/models/me/tuned", "/v1/models/me%2Ftuned"):
        assert (await client.get(path)).json() == listed["data"][1]
    missing = await client.get("/v1/models/nobody")
    assert (missing.status_code, missing.json()["error"]["param"]) == (404, "model")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "a", "dimensions": 5}),
        ("/v1/embeddings", {"input": [5], "dimensions": 5}),
        ("/embed", {"inputs": "a", "dimensions": 5}),
        ("/v2/embed", {"texts": ["a"], "input_type": "search_query", "output_dimension": 5}),
    ],
)
async def test_more_dimensions_than_the_model_has_are_refused_before_anything_is_computed(
    client: httpx.AsyncClient, inference: FakeInference, path: str, body: dict[str, Any]
) -> None:
    reply = await client.post(path, json=body)
    assert (reply.status_code, "5, but the model's vectors have 4" in reply.text) == (400, True)
    assert inference.asked == []


@pytest.mark.parametrize("row", [[5, "x"], [5, 1.5], [5, True], [5, None], [5, [6]], [5, -1], [5, 2**31]])
@pytest.mark.parametrize("listed", [False, True])
async def test_an_invalid_token_id_is_named(
    client: httpx.AsyncClient, inference: FakeInference, row: list[Any], listed: bool
) -> None:
    reply = await client.post("/v1/embeddings", json={"input": [[7], row] if listed else row})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "input[1][1]" if listed else "input[1]")
    assert inference.asked == []


async def test_a_text_has_no_more_token_ids_than_characters(client: httpx.AsyncClient) -> None:
    for given, named in (([5] * 101, "input"), ([[5], [5] * 101], "input[1]")):
        error = (await client.post("/v1/embeddings", json={"input": given})).json()["error"]
        assert error["message"] == f"{named}: 101 token ids, the limit is 100; split the text"


@pytest.mark.parametrize(("path", "field"), [("/v1/embeddings", "input"), ("/embed", "inputs")])
async def test_token_ids_are_counted_before_they_are_validated(
    client: httpx.AsyncClient, inference: FakeInference, path: str, field: str
) -> None:
    reply = await client.post(path, json={field: [["no id"], *[[5] * 100] * 4]})
    assert reply.status_code == 400
    assert f"{field}: 401 token ids together, the limit is 400; send several requests" in reply.text
    assert inference.asked_ids == []
    reply = await client.post(path, json={field: [[5] * 100] * 4})
    assert (reply.status_code, len(inference.asked_ids)) == (200, 1)
