"""Allowed host names: a page that rebinds its own name to this machine is refused."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

import httpx
import pytest
from fastapi import FastAPI

from serve_app.api.application import create_app
from serve_app.domain.request_limits import FineTuneLimits, Limits
from tests.unit.api.fake_inference import FakeInference
from tests.unit.api.fake_jobs import FakeJobs

PATHS = ["/models", "/livez", "/", "/docs"]


@cache  # making one takes longer than all requests to it
def app_of(hosts: Collection[str] | None) -> FastAPI:
    return create_app(FakeInference(), FakeJobs(), Limits(), FineTuneLimits(), hosts=hosts)


async def ask(host: str, hosts: Collection[str] | None, path: str = "/models", method: str = "GET") -> httpx.Response:
    transport = httpx.ASGITransport(app=app_of(hosts))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        return await client.request(method, path, headers={"Host": host})


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost", "::1x",
     "127.0.0.1@evil.example", "[evil.example]:80", ""],
)  # fmt: skip
async def test_another_host_is_refused_on_every_path(host: str, path: str) -> None:
    reply = await ask(host, (), path)
    assert reply.status_code == 403
    assert "is not allowed" in reply.text
    assert "security.allowed_hosts" in reply.text


async def test_a_rebound_page_is_refused_despite_its_origin() -> None:
    headers = {"Host": "evil.example:8000", "Origin": "http://evil.example:8000", "Sec-Fetch-Site": "same-origin"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app_of(())), base_url="http://x") as client:
        for reply in (
            await client.get("/models", headers=headers),
            await client.post("/vectorize", json={"text": "a"}, headers=headers),
            await client.delete("/models/mine", headers=headers),
        ):
            assert (reply.status_code, reply.json()["code"]) == (403, "foreign_host")


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:8000", "localhost.", "app.localhost:8000", "127.0.0.1", "127.0.0.1:8000", "127.9.9.9",
     "192.168.1.7:80", "[::1]:8000", "[::1]"],
)  # fmt: skip
async def test_localhost_and_addresses_are_served(host: str) -> None:
    assert (await ask(host, ())).status_code == 200


@pytest.mark.parametrize("hosts", [("models.example.com",), ("*",), None])
async def test_names_that_the_operator_allows_are_served(hosts: Collection[str] | None) -> None:
    assert (await ask("Models.example.com:8000", hosts)).status_code == 200
    other = await ask("evil.example", hosts)
    assert other.status_code == (403 if hosts == ("models.example.com",) else 200)


async def test_a_request_without_a_host_is_served() -> None:
    sent = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: object) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/livez", "raw_path": b"/livez", "query_string": b"",
             "root_path": "", "scheme": "http", "http_version": "1.0", "headers": [], "asgi": {}}  # fmt: skip
    await app_of(())(scope, receive, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 200  # type: ignore[index]
