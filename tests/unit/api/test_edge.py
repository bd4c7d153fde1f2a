"""The edge around Ray Serve: Ray's own functions read every header, and its errors are translated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from ray.serve._private.http_util import (
    RequestIdMiddleware,
    convert_object_to_asgi_messages,
    parse_disconnect_disabled_header,
    parse_request_timeout_header,
    parse_session_id_header,
    retry_after_headers,
    validate_http_proxy_callback_return,
)
from ray.serve._private.utils import call_function_from_import_path
from starlette.types import Receive, Scope, Send

from serve_app.api.middleware.edge import EdgeMiddleware
from serve_app.launch.command import EDGE

HEADERS = ["X-Request-Timeout-Seconds", "X-Session-Id", "x_session_id", "serve_multiplexed_model_id",
           "Serve-Multiplexed-Model-Id", "X-Request-Disconnect-Disabled", "traceparent", "tracestate"]  # fmt: skip
BYTES = [bytes([byte]) for byte in (*range(0x01, 0x20), *range(0x7F, 0x100)) if byte not in b"\t\n\r\x0b\x0c"]

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class ServeLike:
    """What ``Replica._direct_ingress_asgi`` of Ray 2.60 does with a request before the application has it.

    Attributes:
        seen: Request id, timeout, session and headers of the requests that came through.
        app: What answers.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, float | None, str, dict[bytes, bytes]]] = []
        self.app: App = answering(200, {"ok": True})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        request_id = headers.get(b"x-request-id", b"").decode("utf-8")
        parse_disconnect_disabled_header(headers)
        timeout_s = parse_request_timeout_header(headers, None)
        session = parse_session_id_header(headers)
        for key, value in headers.items():
            key.decode()
            value.decode()  # the multiplexed model and a trace; another version may read any of them
        self.seen.append((request_id, timeout_s, session, headers))
        if timeout_s is not None:
            asyncio.get_running_loop().call_later(timeout_s, int).cancel()
        await self.app(scope, receive, send)


def answering(status: int, message: Any, extra: Any = None) -> App:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for part in convert_object_to_asgi_messages(message, status_code=status, extra_headers=extra):
            await send(part)

    return app


@pytest.fixture
def serve() -> ServeLike:
    return ServeLike()


@pytest.fixture
async def client(serve: ServeLike) -> AsyncIterator[httpx.AsyncClient]:
    app = EdgeMiddleware(RequestIdMiddleware(serve))
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client


def test_serve_imports_the_edge_from_its_variable() -> None:
    (path,) = EDGE.values()
    (middleware,) = validate_http_proxy_callback_return(call_function_from_import_path(path))
    assert middleware.cls is EdgeMiddleware


@pytest.mark.parametrize("name", HEADERS)
async def test_a_byte_that_serve_cannot_read_is_400_and_names_the_header(
    client: httpx.AsyncClient, serve: ServeLike, name: str
) -> None:
    for byte in BYTES:
        reply = await client.post("/v1/embeddings", headers=[(name.encode(), b"1" + byte)])
        assert reply.status_code == 400, byte
        assert name.lower() in reply.json()["error"]["message"]
        assert reply.headers["x-request-id"]
    assert serve.seen == []


async def test_any_byte_in_any_other_header_reaches_the_application(
    client: httpx.AsyncClient, serve: ServeLike
) -> None:
    for byte in BYTES:
        reply = await client.get("/", headers=[(b"X-Anything", b"a" + byte), (b"User-Agent", byte)])
        assert reply.status_code == 200, byte
    assert serve.seen[-1][3][b"x-anything"] == "aÿ".encode()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (b"mine-42", "mine-42"),
        (b"a" * 7000, "a" * 128),
        ("a b\u2028c\x7f".encode(), "abc"),
        (b"trace:1/2+3=4@x~y_z.", "trace:1/2+3=4@x~y_z."),
        (b"\xff\xfeid", "id"),
    ],
)
async def test_a_request_id_is_cut_to_128_safe_characters(
    client: httpx.AsyncClient, serve: ServeLike, given: bytes, kept: str
) -> None:
    reply = await client.get("/", headers=[(b"X-Request-ID", given), (b"X-Request-ID", b"another")])
    assert reply.headers.get_list("x-request-id") == [kept] == [serve.seen[0][0]]


@pytest.mark.parametrize("given", [[], [(b"X-Request-ID", b"\xff")], [(b"X-Request-ID", b"")]])
async def test_without_a_usable_request_id_each_request_gets_one(
    client: httpx.AsyncClient, serve: ServeLike, given: list[tuple[bytes, bytes]]
) -> None:
    ids = {(await client.get("/", headers=given)).headers["x-request-id"] for _ in range(3)}
    assert ids == {seen[0] for seen in serve.seen}
    assert len(ids) == 3


@pytest.mark.parametrize(("given", "seen"), [("0.05", 0.05), ("inf", 1e6), ("1e300", 1e6), ("soon", None)])
async def test_a_deadline_is_one_that_an_event_loop_can_keep(
    client: httpx.AsyncClient, serve: ServeLike, given: str, seen: float | None
) -> None:
    assert (await client.get("/", headers={"X-Request-Timeout-Seconds": given})).status_code == 200
    assert serve.seen[0][1] == seen


@pytest.mark.parametrize("given", ["0", "-5", "nan", "-inf", "0.0", "-1e-300", " -0 "])
@pytest.mark.parametrize("path", ["/livez", "/v1/embeddings"])
async def test_a_deadline_that_serve_would_read_as_none_is_400_and_names_the_header(
    client: httpx.AsyncClient, serve: ServeLike, path: str, given: str
) -> None:
    reply = await client.get(path, headers={"X-Request-Timeout-Seconds": given, "X-Request-ID": "mine"})
    body = reply.json()
    message = body["error"]["message"] if "error" in body else body["detail"]
    assert (reply.status_code, reply.headers["x-request-id"]) == (400, "mine")
    assert "header X-Request-Timeout-Seconds: must be a number of seconds above 0" in message
    assert serve.seen == []


@pytest.mark.parametrize(
    ("path", "shape"), [("/vectorize", "detail"), ("/v1/embeddings", "error"), ("/embed", "error")]
)
async def test_serves_deadline_becomes_a_408_with_a_header_against_retries(
    client: httpx.AsyncClient, serve: ServeLike, path: str, shape: str
) -> None:
    serve.app = answering(408, "Request 7f3a timed out after None s.")
    for headers, words in (({"X-Request-Timeout-Seconds": "0.05"}, "0.05 s"), ({}, "http_options.request_timeout_s")):
        reply = await client.post(path, headers={"X-Request-ID": "mine", **headers})
        assert (reply.status_code, reply.headers["content-type"]) == (408, "application/json")
        assert words in json.dumps(reply.json()[shape])
        assert reply.headers["x-should-retry"] == "false"
        assert reply.headers.get_list("x-request-id") == ["mine"]


async def test_serves_other_errors_get_error_bodies_of_this_service(
    client: httpx.AsyncClient, serve: ServeLike
) -> None:
    serve.app = answering(503, "Request dropped due to backpressure", retry_after_headers(7))
    reply = await client.post("/vectorize")
    assert (reply.status_code, reply.json()["code"], reply.headers["retry-after"]) == (503, "unavailable", "7")
    serve.app = answering(500, "Internal Server Error")
    reply = await client.post("/vectorize")
    assert (reply.status_code, len(reply.json()["error_id"])) == (500, 32)


@pytest.mark.parametrize("ends", [True, False])
async def test_an_error_that_serve_leaves_unfinished_and_without_the_request_id_is_answered_with_it(
    serve: ServeLike, ends: bool
) -> None:
    async def unfinished(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"not ", "more_body": True})
        await send({"type": "http.response.body", "body": b"there", "more_body": not ends})

    serve.app = unfinished
    transport = httpx.ASGITransport(app=EdgeMiddleware(serve))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        reply = await client.post("/vectorize", headers={"X-Request-ID": "mine"})
    assert (reply.status_code, reply.json()["detail"]) == (404, "not there")
    assert reply.headers.get_list("x-request-id") == ["mine"]


async def test_a_failure_in_serve_is_a_500_with_an_id(client: httpx.AsyncClient, serve: ServeLike) -> None:
    async def fails(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    serve.app = fails
    reply = await client.post("/v1/embeddings", headers={"X-Request-ID": "mine"})
    assert reply.status_code == 500
    assert len(reply.json()["error"]["error_id"]) == 32
    assert reply.headers["x-request-id"] == "mine"


async def test_answers_of_the_application_and_of_health_checks_pass_as_they_are(
    client: httpx.AsyncClient, serve: ServeLike
) -> None:
    serve.app = answering(408, {"detail": "mine"})
    assert (await client.post("/vectorize")).json() == {"detail": "mine"}
    serve.app = answering(200, "plain")
    assert (await client.get("/")).text == "plain"
    serve.app = answering(503, "DRAINING")
    assert (await client.get("/-/healthz")).text == "DRAINING"
