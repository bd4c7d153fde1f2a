"""Limits of request bodies, broken replies, and the count of responses."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from serve_app.api.middleware.body_limits import BodyLimitMiddleware
from tests.unit.api.conftest import LIMITS
from tests.unit.api.fake_inference import FakeInference


class Connection:
    """An HTTP connection below any client: it counts what the application takes of the body."""

    def __init__(
        self, chunks: list[bytes], headers: dict[str, str] | None = None, path: str = "/vectorize", method: str = "POST"
    ) -> None:
        self._chunks = iter(chunks)
        self._headers = {"content-type": "application/json"} | (headers or {})
        self._path, self._method = path, method
        self.taken = 0
        self.sent: list[Message] = []

    async def through(self, app: Any) -> None:
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self._method,
            "scheme": "http",
            "path": self._path,
            "raw_path": self._path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in self._headers.items()],
            "server": ("service", 80),
            "client": ("client", 1),
        }
        await app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        chunk = next(self._chunks, None)
        if chunk is None:
            return {"type": "http.request", "body": b"", "more_body": False}
        self.taken += 1
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> Any:
        return json.loads(b"".join(message.get("body", b"") for message in self.sent))


def body_of(size: int) -> bytes:
    """A good request of exactly ``size`` bytes."""
    body = b'{"text": "cats"}'
    return body + b" " * (size - len(body))


async def test_a_body_as_large_as_the_limit_is_read(app: FastAPI) -> None:
    for headers in ({"content-length": str(LIMITS.max_body_bytes)}, {}):
        connection = Connection([body_of(LIMITS.max_body_bytes)], headers)
        await connection.through(app)
        assert connection.status == 200


async def test_a_larger_body_is_refused_by_its_length_before_any_of_it_is_read(
    app: FastAPI, inference: FakeInference
) -> None:
    size = LIMITS.max_body_bytes + 1
    connection = Connection([body_of(size)], {"content-length": str(size)})
    await connection.through(app)
    assert connection.status == 413
    assert connection.body == {
        "detail": "the body is larger than 300000 bytes; send fewer texts at once",
        "code": "payload_too_large",
    }
    assert connection.headers["connection"] == "close"
    assert connection.taken == 0
    assert inference.asked == []


@pytest.mark.parametrize("headers", [{}, {"content-length": "10"}, {"content-length": "many"}])
async def test_a_larger_body_without_a_true_length_is_refused_as_soon_as_that_much_has_come(
    app: FastAPI, inference: FakeInference, headers: dict[str, str]
) -> None:
    connection = Connection([b" " * 100_000] * 1000, headers)
    await connection.through(app)
    assert connection.status == 413
    assert connection.body["code"] == "payload_too_large"
    assert connection.headers["connection"] == "close"
    assert connection.taken == 4  # of a thousand; three were within the limit
    assert inference.asked == []


async def test_no_route_leaves_a_body_unread_and_so_without_bounds(app: FastAPI) -> None:
    form = {"content-type": "multipart/form-data; boundary=b"}
    called = [(path, method.upper()) for path, methods in app.openapi()["paths"].items() for method in methods]
    assert {"GET", "POST", "DELETE"} <= {method for _, method in called}
    for path, method in called:
        connection = Connection([b" " * 100_000] * 1000, form if path == "/v1/files" else {}, path, method)
        await connection.through(app)
        no_form = (path, method) == ("/v1/files", "POST")  # and refused by its first chunk
        assert (connection.status, connection.taken) == ((400, 1) if no_form else (413, 4)), (path, method)


async def test_a_body_that_no_route_reads_does_no_harm(app: FastAPI) -> None:
    for path, method in (("/livez", "GET"), ("/jobs/a/cancel", "POST")):
        connection = Connection([b"x" * 100], {}, path, method)
        await connection.through(app)
        assert (connection.status, connection.taken) == (200 if path == "/livez" else 404, 1)


async def test_a_client_that_streams_too_much_gets_the_same_answer(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b" " * 100_000

    reply = await client.post("/vectorize", content=chunks(), headers={"content-type": "application/json"})
    assert "content-length" not in reply.request.headers
    assert (reply.status_code, reply.json()["code"]) == (413, "payload_too_large")


async def test_a_body_in_many_chunks_is_put_together(app: FastAPI, inference: FakeInference) -> None:
    connection = Connection([b'{"te', b'xt": "c', b"", b"ats", b'"}'])
    await connection.through(app)
    assert connection.status == 200
    assert inference.asked[0].texts == ["cats"]


class Dribble(Connection):
    """A client that sends a piece of its body now and then."""

    def __init__(self, chunks: list[bytes], pause_s: float, headers: dict[str, str] | None = None) -> None:
        super().__init__(chunks, headers)
        self._pause_s = pause_s

    async def _receive(self) -> Message:
        await asyncio.sleep(self._pause_s)
        return await super()._receive()


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads the body, waits for the client to leave if it was told to, and answers."""
    while (await receive()).get("more_body"):
        pass
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


async def test_a_body_that_dribbles_is_refused_when_its_time_is_over() -> None:
    connection = Dribble([b"x"] * 1000, pause_s=0.02)
    began = time.monotonic()
    await connection.through(BodyLimitMiddleware(read_all, max_body_bytes=10_000, body_timeout_s=0.1))
    assert time.monotonic() - began < 1
    assert (connection.status, connection.body["code"]) == (408, "deadline_passed")
    assert connection.body["detail"].startswith("the body comes too slowly (")
    assert connection.headers["connection"] == "close"
    assert connection.taken < 10


async def test_a_large_body_over_a_slow_line_has_the_time_it_needs() -> None:
    connection = Dribble([b"x" * 8192] * 8, pause_s=0.15)  # 55 kB a second, for longer than the bare time-out
    await connection.through(BodyLimitMiddleware(read_all, max_body_bytes=100_000, body_timeout_s=1.0))
    assert connection.taken == 8
    assert connection.status == 200


async def test_after_the_body_a_client_may_be_silent_as_long_as_it_likes() -> None:
    connection = Dribble([], pause_s=0.6)  # twice: for the empty body, and for what comes after it
    await connection.through(BodyLimitMiddleware(read_all, max_body_bytes=10, body_timeout_s=1.0))
    assert connection.status == 200


async def by_path(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body; then it answers, or waits for ever, or breaks, as the path says."""
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/wait":
        await asyncio.Event().wait()
    if scope["path"] == "/break":
        raise RuntimeError("secret")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


async def status_of(
    guard: BodyLimitMiddleware, size: int, headers: dict[str, str] | None = None, path: str = "/"
) -> int:
    connection = Connection([b"x" * size], headers, path)
    await connection.through(guard)
    return connection.status


async def inside(guard: BodyLimitMiddleware, size: int) -> asyncio.Task[int]:
    """A request whose body was read and whose reply is being worked on."""
    request = asyncio.create_task(status_of(guard, size, path="/wait"))
    await asyncio.sleep(0.01)
    return request


async def gone(request: asyncio.Task[int]) -> None:
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)


async def test_a_body_over_the_limit_of_all_bodies_is_refused_until_another_request_ends() -> None:
    guard = BodyLimitMiddleware(by_path, max_body_bytes=100, max_bodies_bytes=250)
    first, second = await inside(guard, 100), await inside(guard, 100)
    for headers, taken in (({"content-length": "51"}, 0), ({}, 1)):
        refused = Connection([b"x" * 51], headers)
        await refused.through(guard)
        assert (refused.status, refused.body["code"]) == (429, "queue_full")
        assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")
        assert refused.taken == taken
    for size in (50, 50, 0):
        assert await status_of(guard, size, {"content-length": str(size)}) == 200
    await gone(first)
    assert await status_of(guard, 100) == 200
    await gone(second)


async def test_no_way_out_of_a_request_keeps_its_room() -> None:
    guard = BodyLimitMiddleware(by_path, max_body_bytes=100, max_bodies_bytes=100)
    for _ in range(3):
        assert await status_of(guard, 100, path="/break") == 500
        too_large = Connection([b"x" * 60, b"x" * 60])
        await too_large.through(guard)
        assert too_large.status == 413
        await gone(await inside(guard, 100))
        assert await status_of(guard, 100) == 200


async def test_an_announced_body_that_is_not_sent_occupies_no_memory() -> None:
    guard = BodyLimitMiddleware(by_path, max_body_bytes=100, max_bodies_bytes=100)
    silent = Dribble([b"x" * 100], pause_s=60, headers={"content-length": "100"})
    waiting = asyncio.ensure_future(silent.through(guard))
    await asyncio.sleep(0.01)
    assert await status_of(guard, 100, {"content-length": "100"}) == 200
    waiting.cancel()


async def test_a_reply_that_breaks_after_its_start_is_broken_off_not_completed() -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"vectors":[', "more_body": True})
        raise RuntimeError("secret")

    connection = Connection([])
    with pytest.raises(RuntimeError, match="secret"):
        await connection.through(BodyLimitMiddleware(breaks, max_body_bytes=10))
    assert [message["type"] for message in connection.sent] == ["http.response.start", "http.response.body"]


async def test_a_failure_before_the_reply_becomes_a_500_with_an_id() -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("secret")

    connection = Connection([])
    await connection.through(BodyLimitMiddleware(breaks, max_body_bytes=10))
    assert connection.status == 500
    assert sorted(connection.body) == ["code", "detail", "error_id"]


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_other_connections_pass_unchanged(kind: str) -> None:
    passed = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append((scope, receive, send))

    connection = Connection([])
    scope = {"type": kind}
    await BodyLimitMiddleware(inner, max_body_bytes=10)(scope, connection._receive, connection._send)
    assert passed == [(scope, connection._receive, connection._send)]


async def test_every_response_is_counted_once_and_unknown_paths_share_a_label(
    app: FastAPI, client: httpx.AsyncClient, inference: FakeInference, statuses: list[tuple[str, int]]
) -> None:
    too_large = {"content-length": str(LIMITS.max_body_bytes + 1)}
    await client.post("/vectorize", json={"text": "cats"})
    await client.post("/vectorize", json={"text": ""})
    await client.post("/made-up-1", json={})
    await Connection([], too_large, path="/made-up-2").through(app)
    inference.error = RuntimeError()
    await client.post("/vectorize-batch", json={"items": ["cats"]})
    assert statuses == [
        ("/vectorize", 200),
        ("/vectorize", 422),
        ("other", 404),
        ("other", 413),
        ("/vectorize-batch", 500),
    ]
