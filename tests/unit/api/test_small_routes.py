"""HEAD for every GET, /ping, both lists of models, DELETE /v1/models, sparse weights by id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.types import Message

from serve_app.api.middleware.head_requests import HeadMiddleware
from serve_app.domain.errors import ConflictError, ModelNotFoundError
from tests.unit.api.fake_inference import FakeInference


async def test_every_get_answers_head_with_the_same_status_and_no_body(
    client: httpx.AsyncClient, app: FastAPI, statuses: list[tuple[str, int]]
) -> None:
    paths = [path for path, methods in app.openapi()["paths"].items() if "get" in methods]
    assert len(paths) > 15
    for template in [*paths, "/", "/docs", "/openapi.json"]:
        path = template.replace("{", "").replace("}", "")
        got, head = await client.get(path), await client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]
        assert head.headers.get("content-length") == got.headers.get("content-length")
        assert statuses[-2:] == [statuses[-1]] * 2
    refused = await client.head("/vectorize")
    assert (refused.status_code, refused.content) == (405, b"")


@pytest.mark.parametrize("spec", ["2.0", "2.4"])  # of 2.4 on, only a failing send ends a stream
async def test_head_of_a_stream_without_end_ends(spec: str) -> None:
    sent: list[Message] = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"alive"
            await asyncio.sleep(0)

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        await asyncio.sleep(3600)
        raise AssertionError

    scope = {"type": "http", "method": "HEAD", "asgi": {"version": "3.0", "spec_version": spec}}
    async with asyncio.timeout(5):
        await HeadMiddleware(StreamingResponse(endless()))(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert (sent[1]["body"], sent[1]["more_body"]) == (b"", False)


async def test_ping_is_livez(client: httpx.AsyncClient) -> None:
    assert (await client.get("/ping")).json() == (await client.get("/livez")).json() == {"status": "ok"}


async def test_models_at_the_root_have_both_forms(client: httpx.AsyncClient) -> None:
    received = (await client.get("/models")).json()
    assert [model["name"] for model in received["models"]] == [model["id"] for model in received["data"]]
    for model in received["data"]:
        assert {"id", "object", "created", "stats", "backend", "capabilities"} <= set(model)
        assert "owned_by" not in model, "infinity's clients refuse any other owner than infinity"
    assert received["object"] == "list"


async def test_a_model_is_deleted_as_openai_does(client: httpx.AsyncClient, inference: FakeInference) -> None:
    reply = await client.delete("/v1/models/me/tuned")
    assert (reply.status_code, reply.json()) == (200, {"id": "me/tuned", "object": "model", "deleted": True})
    assert inference.deleted == ["me/tuned"]
    for error, status in ((ModelNotFoundError("none"), 404), (ConflictError("in use"), 409)):
        inference.error = error
        reply = await client.delete("/v1/models/nope")
        assert (reply.status_code, reply.json()["error"]["message"]) == (status, error.message)


@pytest.mark.parametrize("path", ["/vectorize-hybrid", "/vectorize-batch-hybrid"])
async def test_sparse_weights_come_by_id_on_request(client: httpx.AsyncClient, path: str) -> None:
    text = {"text": "able readable cat"} if path == "/vectorize-hybrid" else {"items": ["able readable cat"]}
    received = (await client.post(path, json=text | {"sparse_format": "ids"})).json()
    vector = received["hybrid_vector"] if path == "/vectorize-hybrid" else received["hybrid_vectors"][0]
    assert vector["sparse"] == {"indices": [3, 4, 8], "values": [0.5, 0.5, 0.5]}
    by_text = (await client.post(path, json=text)).json()
    assert '"sparse":{"able":0.5' in str(by_text).replace("'", '"').replace(" ", "")
    refused = await client.post(path, json=text | {"sparse_format": "id"})
    assert (refused.status_code, refused.json()["detail"][:13]) == (422, "sparse_format")
