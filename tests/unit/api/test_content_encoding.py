"""Compressed bodies are refused on every route that reads one."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from serve_app.domain.errors import DeadlineError, QueueFullError
from tests.unit.api.fake_inference import FakeInference


async def test_every_route_with_a_body_refuses_a_content_encoding_by_name(
    client: httpx.AsyncClient, inference: FakeInference, app: FastAPI
) -> None:
    paths = [path for path, item in app.openapi()["paths"].items() if "post" in item]
    assert len(paths) > 15
    for path in paths:
        reply = await client.post(path.replace("{", "").replace("}", ""), headers={"Content-Encoding": "Gzip, br"})
        assert (reply.status_code, reply.headers["accept-encoding"]) == (415, "identity"), path
        assert "'gzip, br' is not read" in reply.text
    assert inference.asked == []


@pytest.mark.parametrize("encoding", ["identity", "", "Identity"])
async def test_the_encoding_identity_is_accepted(client: httpx.AsyncClient, encoding: str) -> None:
    reply = await client.post("/vectorize", json={"text": "a"}, headers={"Content-Encoding": encoding})
    assert reply.status_code == 200
    assert (await client.get("/models", headers={"Content-Encoding": "gzip"})).status_code == 200


async def test_a_passed_deadline_has_a_header_against_retries(
    client: httpx.AsyncClient, inference: FakeInference
) -> None:
    for error, header in ((DeadlineError("late"), "false"), (QueueFullError("full"), None)):
        inference.error = error
        reply = await client.post("/v1/embeddings", json={"input": "a"})
        assert (reply.status_code, reply.headers.get("x-should-retry")) == (error.status, header)
