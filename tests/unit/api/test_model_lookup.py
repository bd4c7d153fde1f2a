"""Lookup of a model by any spelling of its name, and JSON bodies without a content type."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.unit.api.fake_inference import FakeInference


@pytest.mark.parametrize("prefix", ["", "openai/", "hosted_vllm/", "litellm_proxy/openai/"])
async def test_a_model_is_found_with_a_providers_prefix(client: httpx.AsyncClient, prefix: str) -> None:
    assert (await client.get(f"/v1/models/{prefix}my-e5")).json()["id"] == "my-e5"
    assert (await client.get(f"/models/{prefix}my-e5")).json()["name"] == "my-e5"


@pytest.mark.parametrize("name", ["nothing", "someone/my-e5", "openai/nothing"])
async def test_another_name_is_not_found(client: httpx.AsyncClient, name: str) -> None:
    assert repr(name) in (await client.get(f"/v1/models/{name}")).json()["error"]["message"]
    assert (await client.get(f"/models/{name}")).status_code == 404


async def test_a_long_name_is_not_found_and_cut_in_the_message(client: httpx.AsyncClient) -> None:
    for name in ("openai/" * 3 + "my-e5", "openai/" * 500 + "my-e5", "x" * 4000):
        for path in ("/v1/models/", "/models/"):
            reply = await client.get(path + name)
            assert (reply.status_code, len(reply.text) < 1000) == (404, True)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "a"}),
        ("/embeddings", {"input": "a"}),
        ("/v1/embed", {"texts": ["a"]}),
        ("/v2/rerank", {"query": "q", "documents": ["a"]}),
        ("/rerank", {"query": "q", "documents": ["a"]}),
        ("/embed", {"inputs": "a"}),
    ],
)
async def test_a_body_without_a_content_type_is_json_for_clients_of_other_services(
    client: httpx.AsyncClient, path: str, body: Any
) -> None:
    reply = await client.post(path, content=json.dumps(body).encode())
    assert "content-type" not in reply.request.headers
    assert reply.status_code == 200, reply.text


async def test_native_routes_require_the_content_type(client: httpx.AsyncClient, inference: FakeInference) -> None:
    reply = await client.post("/vectorize", content=b'{"text": "a"}')
    assert reply.status_code == 422
    assert "Content-Type: application/json (it was 'absent')" in reply.json()["detail"]
    assert inference.asked == []
