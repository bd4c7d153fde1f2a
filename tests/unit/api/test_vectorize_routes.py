"""/vectorize and /vectorize-batch: all forms of a request, and the calls of the inference service."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from serve_app.domain.profiles import TextRole
from tests.unit.api.conftest import LIMITS
from tests.unit.api.fake_inference import Asked, FakeInference, vector_of


def listed(text: str) -> list[float]:
    return [float(str(value)) for value in vector_of(text)]  # as JSON writes a float32


async def test_one_text_is_embedded_as_a_query_by_default(client: httpx.AsyncClient, inference: FakeInference) -> None:
    reply = await client.post("/vectorize", json={"text": "cats"})
    assert (reply.status_code, reply.json()) == (200, {"vector": listed("cats")})
    assert reply.headers["content-type"] == "application/json"
    await client.post("/vectorize", json={"text": "cats", "is_query": False})
    assert inference.asked == [
        Asked(["cats"], TextRole.QUERY, None, True, LIMITS.request_timeout_s),
        Asked(["cats"], TextRole.PASSAGE, None, True, LIMITS.request_timeout_s),
    ]


@pytest.mark.parametrize(
    ("items", "vectors"),
    [
        (["cats", "dogs"], [listed("cats"), listed("dogs")]),
        (["cats", "cats"], [listed("cats"), listed("cats")]),
        ({"b": "cats", "a": "dogs"}, {"b": listed("cats"), "a": listed("dogs")}),
        ([{"id": "b", "text": "cats"}, {"text": "dogs", "id": "a"}], {"b": listed("cats"), "a": listed("dogs")}),
        (
            {"": "cats", "<map>": "dogs", "ключ 🔑": "x"},
            {"": listed("cats"), "<map>": listed("dogs"), "ключ 🔑": listed("x")},
        ),
    ],
)
async def test_all_forms_of_items_are_answered_in_their_form(
    client: httpx.AsyncClient, inference: FakeInference, items: Any, vectors: Any
) -> None:
    reply = await client.post("/vectorize-batch", json={"items": items})
    assert (reply.status_code, reply.json()) == (200, {"vectors": vectors})
    if isinstance(vectors, dict):
        assert list(reply.json()["vectors"]) == list(vectors)  # in the order of the request
    (asked,) = inference.asked
    assert asked == Asked(asked.texts, TextRole.PASSAGE, None, True, LIMITS.request_timeout_s)


@pytest.mark.parametrize(("items", "vectors"), [([], []), ({}, {})])
async def test_empty_items_get_an_empty_answer_in_their_form_without_any_work(
    client: httpx.AsyncClient, inference: FakeInference, items: Any, vectors: Any
) -> None:
    reply = await client.post("/vectorize-batch", json={"items": items})
    assert (reply.status_code, reply.json()) == (200, {"vectors": vectors})
    assert inference.asked == []


async def test_options_reach_the_service(client: httpx.AsyncClient, inference: FakeInference) -> None:
    options = {"is_query": True, "model": "other-e5", "truncate": False}
    await client.post("/vectorize-batch", json={"items": ["cats"], **options})
    await client.post("/vectorize", json={"text": "cats", **options})
    assert inference.asked == [Asked(["cats"], TextRole.QUERY, "other-e5", False, LIMITS.request_timeout_s)] * 2


@pytest.mark.parametrize("text", ["  padded  ", "a\x00b", "😀", "مرحبا", "line\u2028", "x" * 100, "\ufeffbom"])
async def test_a_text_reaches_the_service_unchanged(
    client: httpx.AsyncClient, inference: FakeInference, text: str
) -> None:
    assert (await client.post("/vectorize", json={"text": text})).status_code == 200
    assert inference.asked[0].texts == [text]


async def test_as_many_texts_as_the_limit_are_accepted(client: httpx.AsyncClient, inference: FakeInference) -> None:
    reply = await client.post("/vectorize-batch", json={"items": ["x"] * LIMITS.max_items})
    assert reply.status_code == 200
    assert len(reply.json()["vectors"]) == LIMITS.max_items


async def test_cut_texts_are_named_in_a_header(client: httpx.AsyncClient, inference: FakeInference) -> None:
    inference.truncated = [0, 2]
    reply = await client.post("/vectorize-batch", json={"items": ["a", "b", "c"]})
    assert (reply.headers["x-truncated"], reply.headers["x-truncated-count"]) == ("0,2", "2")
    inference.truncated = [0]
    assert (await client.post("/vectorize", json={"text": "a"})).headers["x-truncated"] == "0"


async def test_without_cut_texts_there_is_no_such_header(client: httpx.AsyncClient) -> None:
    reply = await client.post("/vectorize-batch", json={"items": ["a", "b", "c"]})
    assert "x-truncated" not in reply.headers
    assert "x-truncated-count" not in reply.headers


# ------------------------------------------------------------------ the deadline


@pytest.mark.parametrize("path", ["/vectorize", "/vectorize-batch"])
@pytest.mark.parametrize(
    ("header", "least_s", "most_s"),
    [("5", 4.9, 5), ("0.5", 0.4, 0.5), ("0.01", 0.005, 0.01), ("29.5", 29.4, 29.5), ("31", 30, 30), ("inf", 30, 30)],
)
async def test_the_header_lowers_the_deadline_and_never_raises_it(
    client: httpx.AsyncClient, inference: FakeInference, path: str, header: str, least_s: float, most_s: float
) -> None:
    body = {"text": "cats"} if path == "/vectorize" else {"items": ["cats"]}
    reply = await client.post(path, json=body, headers={"X-Request-Timeout-Seconds": header})
    assert reply.status_code == 200
    assert least_s - 1e-9 <= inference.asked[0].timeout_s <= most_s  # a little less: to answer before anybody gives up


@pytest.mark.parametrize("path", ["/vectorize", "/vectorize-batch"])
@pytest.mark.parametrize("header", ["0", "-1", "soon", "nan", "", "-inf"])
async def test_an_invalid_deadline_is_refused(
    client: httpx.AsyncClient, inference: FakeInference, path: str, header: str
) -> None:
    body = {"text": "cats"} if path == "/vectorize" else {"items": []}
    reply = await client.post(path, json=body, headers={"X-Request-Timeout-Seconds": header})
    assert reply.status_code == 422
    assert "X-Request-Timeout-Seconds" in reply.json()["detail"]
    assert inference.asked == []
