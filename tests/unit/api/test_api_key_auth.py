"""API keys: accepted and refused requests, rate limits, and a key for every route."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute, Mount
from starlette.types import Message

from serve_app.api.application import create_app
from serve_app.api.inference_protocol import InferenceProtocol
from serve_app.api.inference_results import CallOptions, Embedded
from serve_app.api.middleware.api_key_auth import Access
from serve_app.api.middleware.token_quota import Limiter
from serve_app.domain.profiles import TextRole
from serve_app.domain.request_limits import FineTuneLimits
from serve_app.domain.usage import add_tokens
from serve_app.security.api_keys import ApiKey, KeyRing, Scope, sha256_of
from serve_app.security.rate_limits import Admission, Rates
from tests.unit.api.conftest import LIMITS
from tests.unit.api.delegate import Delegate
from tests.unit.api.fake_inference import FakeInference
from tests.unit.api.fake_jobs import FakeJobs
from tests.unit.api.test_body_limits import Connection

USE, ADMIN, TWICE, FRUGAL = "rk_for-use", "rk_for-admin", "rk_two-a-minute", "rk_sixty-tokens-a-minute"
KEYS = (
    ApiKey("search", sha256_of(USE)),
    ApiKey("ops", sha256_of(ADMIN), Scope.ADMIN),
    ApiKey("twice", sha256_of(TWICE), requests_per_minute=2),
    ApiKey("frugal", sha256_of(FRUGAL), tokens_per_minute=60),
)
OPEN_PATHS = {"/", "/livez", "/ping", "/readyz", "/health", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
JSON = {"Content-Type": "application/json"}
PAGE = "https://app.example.com"


class FakeLimiter:
    """Implements ``api.middleware.token_quota.Limiter`` with a clock set by hand, and records its calls."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[str] = []
        self._rates = Rates()

    async def admit(self, key: ApiKey, estimate: int) -> Admission:
        self.asked.append(key.name)
        await asyncio.sleep(0)  # as a call of another process: other requests go on meanwhile
        return self._rates.admit(key, self.now, estimate=estimate)

    async def charge(self, key: ApiKey, extra: int, reserved: int) -> float:
        await asyncio.sleep(0)
        return self._rates.charge(key, extra, self.now, reserved=reserved)

    def settle(self, key: ApiKey, used: int, reserved: int) -> None:
        self._rates.settle(key, used, self.now, reserved=reserved)


class CountingInference(FakeInference):
    """Charges a token for a character.

    Attributes:
        tokens: Of all requests that were charged.
    """

    tokens = 0

    async def embed(self, texts: Sequence[str], role: TextRole | None, options: CallOptions) -> Embedded:
        await add_tokens(sum(map(len, texts)))
        self.tokens += sum(map(len, texts))
        return await super().embed(texts, role, options)


@dataclass
class KeyedService:
    """An application with keys, and the fakes behind it."""

    inference: CountingInference
    limiter: FakeLimiter
    keys: KeyRing
    statuses: list[tuple[str, int]]
    app: FastAPI
    client: httpx.AsyncClient

    async def vectorize(self, key: str | None, text: str = "cats") -> httpx.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return await self.client.post("/vectorize", json={"text": text}, headers=headers)


@cache
def shared_application() -> tuple[FastAPI, Delegate, Delegate, Delegate]:
    """The application, and delegates to the service, the inference service and the limiter of the running test."""
    service, inference, limiter = Delegate(), Delegate(), Delegate()
    app = create_app(
        cast(InferenceProtocol, inference),
        FakeJobs(),
        LIMITS,
        FineTuneLimits(),
        count_status=lambda path, status: service.statuses.append((path, status)),
        access=Access(lambda: service.keys, cast(Limiter, limiter)),
        cors_origins=(PAGE,),
    )
    return app, service, inference, limiter


@pytest.fixture
async def service() -> AsyncIterator[KeyedService]:
    app, *behind = shared_application()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service") as client:
        service = KeyedService(CountingInference(), FakeLimiter(), KeyRing(KEYS), [], app, client)
        for delegate, target in zip(behind, (service, service.inference, service.limiter), strict=True):
            delegate.target = target
        yield service


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def paths_of(routes: Sequence[BaseRoute]) -> Iterator[str]:
    """Every path that is routed, those outside the document included; names in braces stay as they are."""
    for route in routes:
        router = getattr(route, "original_router", None)
        if isinstance(router, APIRouter):
            yield from paths_of(router.routes)
        elif isinstance(route, Mount):
            yield f"{route.path}/anything"
        else:
            yield getattr(route, "path")  # noqa: B009  # BaseRoute has none


def all_paths(app: FastAPI) -> set[str]:
    return {*paths_of(app.routes), *app.openapi()["paths"]}


async def test_no_route_answers_without_a_key_but_those_that_are_meant_to(service: KeyedService) -> None:
    answered = set()
    paths = all_paths(service.app)
    assert {"/vectorize", "/rerank", "/models/{name}", "/jobs", "/fine-tune", *OPEN_PATHS} <= {
        path.replace(":path", "") for path in paths
    }
    for path in paths:
        for method in METHODS:
            reply = await service.client.request(method, path)
            if reply.status_code != 401:
                answered.add((method, path))
            else:
                assert reply.headers["WWW-Authenticate"] == "Bearer"
    assets = {f"/static-offline-docs/{name}" for name in ("anything", "redoc.standalone.js")}
    assert answered == {(method, path) for method in ("GET", "HEAD") for path in OPEN_PATHS | assets}
    assert service.inference.asked == []


async def test_an_open_path_works_without_a_key(service: KeyedService) -> None:
    for path in OPEN_PATHS | {"/static-offline-docs/swagger-ui.css"}:
        assert (await service.client.get(path)).status_code == 200, path


async def test_with_a_key_every_route_is_there_and_an_unknown_path_is_a_404(service: KeyedService) -> None:
    for path in all_paths(service.app):
        assert (await service.client.get(path, headers=bearer(ADMIN))).status_code not in {401, 403}, path
    assert (await service.client.get("/nowhere", headers=bearer(USE))).status_code == 404
    assert (await service.client.get("/nowhere")).status_code == 401


KNOWN = (
    bearer(USE),
    {"authorization": f"bearer   {USE} "},
    {"X-API-Key": USE},
    {"Authorization": "Basic dXNlcjpwYXNz", "X-API-Key": USE},  # another gateway's header beside the key
    {"Authorization": "Bearer wrong", "X-API-Key": USE},
)
UNKNOWN: tuple[dict[str, str], ...] = (
    {},
    bearer("wrong"),
    bearer(""),
    bearer(sha256_of(USE)),
    bearer(f"{USE}x"),
    bearer(f"search:{USE}"),
    {"Authorization": USE},
    {"Authorization": f"Basic {USE}"},
    {"X-API-Key": f"Bearer {USE}"},
    {"X-API-Key": ""},
    {"Cookie": f"X-API-Key={USE}"},
)


async def test_a_key_is_taken_from_either_header(service: KeyedService) -> None:
    for headers in KNOWN:
        reply = await service.client.post("/vectorize", json={"text": "cats"}, headers=headers)
        assert reply.status_code == 200, headers


async def test_other_headers_are_not_keys(service: KeyedService) -> None:
    for headers in UNKNOWN:
        reply = await service.client.post(f"/vectorize?api_key={USE}", json={"text": "cats"}, headers=headers)
        assert reply.status_code == 401, headers
        assert reply.headers["WWW-Authenticate"] == "Bearer"
        assert reply.json() == {
            "detail": "send a valid API key: Authorization: Bearer KEY, or X-API-Key: KEY",
            "code": "invalid_api_key",
        }
    assert service.inference.asked == []
    assert service.statuses == [("other", 401)] * len(UNKNOWN)


DETOURS = (
    *("//vectorize", "/health/../vectorize", "/static-offline-docs/../vectorize"),
    *("/livez/", "/HEALTH", "/docs/x", "/.", ""),
)


async def test_no_spelling_of_a_path_gets_around_the_key(service: KeyedService) -> None:
    for path in DETOURS:
        connection = Connection([b'{"text": "cats"}'], path=path)
        await connection.through(service.app)
        assert connection.status == 401, path
    assert service.inference.asked == []


async def test_the_body_of_a_request_without_a_key_is_not_read(service: KeyedService) -> None:
    connection = Connection([b"x" * 1000] * 10)
    await connection.through(service.app)
    assert connection.status == 401
    assert connection.taken == 0


async def test_below_v1_the_refusal_has_an_openai_error_body(service: KeyedService) -> None:
    reply = await service.client.post("/v1/rerank", json={"query": "a", "documents": ["b"]})
    assert reply.status_code == 401
    error = reply.json()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")


ADMIN_ONLY = [
    ("POST", "/fine-tune"),
    ("POST", "/fine-tune-lora"),
    ("GET", "/train-status/job-1"),
    ("GET", "/jobs"),
    ("GET", "/jobs/job-1"),
    ("POST", "/jobs/job-1/cancel"),
    ("DELETE", "/jobs/job-1"),
    ("GET", "/jobs/job-1/events"),
    ("GET", "/jobs/job-1/logs"),
    ("GET", "/jobs/job-1/loss.svg"),
    ("DELETE", "/models/my-model"),
    ("DELETE", "/models/me/my-model"),
    ("GET", "/v1/fine_tuning/jobs"),
    ("POST", "/v1/fine_tuning/jobs"),
    ("POST", "/v1/fine_tuning/jobs/job-1/cancel"),
    ("GET", "/v1/files"),
    ("POST", "/v1/files"),
    ("GET", "/v1/files/file-1/content"),
    ("DELETE", "/v1/models/my-model"),
]


async def test_jobs_files_and_deleting_take_the_admin_scope(service: KeyedService) -> None:
    for method, path in ADMIN_ONLY:
        reply = await service.client.request(method, path, headers=bearer(USE))
        assert reply.status_code == 403, path
        assert reply.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="admin"'
        assert "the API key 'search' lacks the scope 'admin', which this route requires" in reply.text
        assert service.inference.deleted == []
        assert (await service.client.request(method, path)).status_code == 401
        assert (await service.client.request(method, path, headers=bearer(ADMIN))).status_code not in {401, 403}
        service.inference.deleted.clear()


async def test_everything_else_takes_any_key(service: KeyedService) -> None:
    for method, path in (("GET", "/models"), ("GET", "/models/my-e5"), ("POST", "/vectorize-batch")):
        assert (await service.client.request(method, path, headers=bearer(USE))).status_code in {200, 422}


async def test_a_scope_holds_below_a_prefix_too(service: KeyedService) -> None:
    """Ray Serve's ``route_prefix`` comes as the root path."""
    for path, expected in (("/api/jobs", 403), ("/api/models", 200), ("/api/livez", 200)):
        transport = httpx.ASGITransport(app=service.app, root_path="/api")
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            assert (await client.get(path, headers=bearer(USE))).status_code == expected, path


async def test_keys_may_change_while_the_service_runs(service: KeyedService) -> None:
    service.keys = KeyRing([ApiKey("new", sha256_of("rk_new"))])
    assert (await service.vectorize(USE)).status_code == 401
    assert (await service.vectorize("rk_new")).status_code == 200


async def test_a_key_without_requests_left_gets_429_and_retry_after(service: KeyedService) -> None:
    assert [(await service.vectorize(TWICE)).status_code for _ in range(4)] == [200, 200, 429, 429]
    service.limiter.now = 12.5
    reply = await service.vectorize(TWICE)
    assert (reply.status_code, reply.headers["Retry-After"]) == (429, "18")
    assert reply.json() == {
        "detail": "the API key 'twice' is over its limit of requests or tokens a minute; retry in 17.5 s",
        "code": "rate_limit_exceeded",
    }
    service.limiter.now = 30.0
    assert [(await service.vectorize(TWICE)).status_code for _ in range(2)] == [200, 429]
    assert len(service.inference.asked) == 3


async def test_the_real_tokens_of_the_texts_are_counted(service: KeyedService) -> None:
    assert (await service.vectorize(FRUGAL, "x" * 59)).status_code == 200
    assert (await service.vectorize(FRUGAL, "x" * 60)).status_code == 200  # one token was left; the rest is debt
    reply = await service.vectorize(FRUGAL, "x")
    assert (reply.status_code, reply.headers["Retry-After"]) == (429, "60")
    service.limiter.now = 60.0
    assert (await service.vectorize(FRUGAL, "x")).status_code == 200


@pytest.mark.parametrize("padding", [0, 300])  # of the body: the estimate is too low without it, and too high with it
async def test_parallel_requests_spend_at_most_the_limit_and_one_request_more(
    service: KeyedService, padding: int
) -> None:
    async def ask() -> httpx.Response:
        content = json.dumps({"text": "x" * 50}).encode() + b" " * padding
        return await service.client.post("/vectorize", content=content, headers=bearer(FRUGAL) | JSON)

    replies = await asyncio.gather(*(ask() for _ in range(16)))
    statuses = [reply.status_code for reply in replies]
    assert set(statuses) == {200, 429}
    assert service.inference.tokens == 50 * statuses.count(200) <= 60 + 50
    assert all("Retry-After" in reply.headers for reply in replies if reply.status_code == 429)


async def test_the_unused_part_of_an_estimate_is_returned(service: KeyedService) -> None:
    for _ in range(12):  # each reserves all 60 tokens and uses five of them
        reply = await service.client.post(
            "/vectorize", content=b'{"text": "xxxxx"}' + b" " * 300, headers=bearer(FRUGAL) | JSON
        )
        assert reply.status_code == 200
    assert (await service.vectorize(FRUGAL, "x")).status_code == 429


async def test_a_request_that_fails_before_its_texts_are_read_costs_no_tokens(service: KeyedService) -> None:
    for _ in range(20):
        reply = await service.client.post("/vectorize", content=b"{" + b" " * 300, headers=bearer(FRUGAL) | JSON)
        assert reply.status_code == 422
    assert (await service.vectorize(FRUGAL, "x" * 60)).status_code == 200


async def test_a_request_over_the_limit_of_a_minute_is_refused_and_costs_a_minutes_tokens(
    service: KeyedService,
) -> None:
    reply = await service.vectorize(FRUGAL, "x" * 61)
    assert (reply.status_code, reply.json()["detail"]) == (
        413,
        "the request has at least 61 tokens, but the API key 'frugal' may use 60 a minute; "
        "send fewer or shorter texts at once",
    )
    assert "Retry-After" not in reply.headers
    assert (await service.vectorize(FRUGAL, "x")).status_code == 429  # its texts were tokenised
    service.limiter.now = 60.0
    assert (await service.vectorize(FRUGAL, "x" * 60)).status_code == 200


async def test_a_request_that_fails_after_its_texts_were_read_costs_its_tokens(service: KeyedService) -> None:
    service.inference.error = RuntimeError("boom")
    assert (await service.vectorize(FRUGAL, "x" * 60)).status_code == 500
    assert (await service.vectorize(FRUGAL)).status_code == 429


async def test_refused_requests_are_not_charged_and_keys_have_separate_limits(service: KeyedService) -> None:
    for key in ("wrong", None):
        assert (await service.vectorize(key)).status_code == 401
    assert (await service.client.get("/jobs", headers=bearer(TWICE))).status_code == 403
    assert [(await service.vectorize(TWICE)).status_code for _ in range(3)] == [200, 200, 429]
    assert (await service.vectorize(FRUGAL)).status_code == 200


async def test_without_limits_nothing_is_counted(service: KeyedService) -> None:
    for key in (USE, ADMIN, "wrong"):
        await service.vectorize(key)
    await service.client.get("/livez", headers=bearer(TWICE))
    assert service.limiter.asked == []


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


async def test_the_log_names_the_key_and_no_secret(service: KeyedService, lines: pytest.LogCaptureFixture) -> None:
    await service.vectorize(USE)
    await service.vectorize("rk_wrong")
    await service.client.get("/jobs", headers={"X-API-Key": USE})
    await service.client.get("/none%0aAPI key ops: POST", headers=bearer(ADMIN))
    await service.client.get("/livez", headers=bearer(USE))
    received = [
        record.getMessage() for record in lines.records if record.name == "serve_app.api.middleware.api_key_auth"
    ]
    assert received == [
        "API key search: POST /vectorize 200",
        "API key unknown: POST other 401",
        "API key search: GET other 403",
        "API key ops: GET other 404",
    ]
    for secret in (USE, ADMIN, "rk_wrong", sha256_of(USE)):
        assert secret not in lines.text


async def test_a_web_socket_is_closed_before_it_is_open(service: KeyedService) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await service.app({"type": "websocket", "path": "/", "headers": [], "query_string": b""}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_the_openapi_document_marks_operations_that_need_a_key(service: KeyedService) -> None:
    document: dict[str, Any] = (await service.client.get("/openapi.json")).json()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            needs_key = method != "get" or path not in OPEN_PATHS
            assert ("security" in operation) == needs_key
            assert ({"401", "429"} <= set(operation["responses"])) == needs_key
    assert "403" in document["paths"]["/models/{name}"]["delete"]["responses"]
    assert "403" not in document["paths"]["/models/{name}"]["get"]["responses"]


async def test_a_page_of_an_allowed_origin_may_ask_and_read_refusals(service: KeyedService) -> None:
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    reply = await service.client.options("/vectorize", headers=asks)
    assert reply.status_code == 200
    assert reply.headers["Access-Control-Allow-Origin"] == PAGE
    assert "authorization" in reply.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in reply.headers
    for key, status in (("wrong", 401), (USE, 200)):
        reply = await service.client.post("/vectorize", json={"text": "a"}, headers=bearer(key) | {"Origin": PAGE})
        assert (reply.status_code, reply.headers["Access-Control-Allow-Origin"]) == (status, PAGE)
        assert "X-Truncated" in reply.headers["Access-Control-Expose-Headers"]
    too_large = await service.client.post("/vectorize", content=b"x" * (LIMITS.max_body_bytes + 1), headers=asks)
    assert (too_large.status_code, too_large.headers["Access-Control-Allow-Origin"]) == (413, PAGE)


async def test_a_page_of_another_origin_may_not(service: KeyedService) -> None:
    asks = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    reply = await service.client.options("/vectorize", headers=asks)
    assert reply.status_code == 400
    assert "Access-Control-Allow-Origin" not in reply.headers
    reply = await service.client.post("/vectorize", json={"text": "a"}, headers=bearer(USE) | asks)
    assert "Access-Control-Allow-Origin" not in reply.headers


async def test_without_settings_there_are_neither_keys_nor_permissions_for_pages(client: httpx.AsyncClient) -> None:
    reply = await client.post("/vectorize", json={"text": "cats"}, headers={"Origin": PAGE})
    assert reply.status_code == 403
    assert reply.json()["code"] == "foreign_origin"
    assert not [name for name in reply.headers if name.startswith("access-control")]
    assert (await client.post("/vectorize", json={"text": "cats"})).status_code == 200
    document = (await client.get("/openapi.json")).json()
    assert "securitySchemes" not in document["components"]
