"""One failure, three error bodies: the dialect of the request selects one."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from serve_app.api.dialects.dialect import Failure
from serve_app.api.dialects.openai.openai_errors import openai_error_body
from serve_app.domain.errors import InternalError, QueueFullError, ServiceError, UnavailableError
from tests.unit.api.conftest import LIMITS
from tests.unit.api.fake_inference import FakeInference
from tests.unit.api.test_body_limits import Connection

NATIVE, OPENAI = ["code", "detail"], ["detail", "error", "message"]
TEI = ["code", "detail", "error", "error_type", "message"]
CALLS = {
    "/vectorize": ({"text": "cats"}, NATIVE),
    "/rerank": ({"query": "a", "candidates": ["b"]}, NATIVE),
    "/embeddings": ({"input": "cats"}, OPENAI),
    "/score": ({"text_1": "a", "text_2": "b"}, OPENAI),
    "/v1/embeddings": ({"input": "cats"}, OPENAI),
    "/v1/embed": ({"texts": ["cats"]}, OPENAI),
    "/v2/embed": ({"texts": ["cats"], "input_type": "search_query"}, OPENAI),
    "/v2/rerank": ({"query": "a", "documents": ["b"]}, OPENAI),
    "/embed": ({"inputs": "cats"}, TEI),
    "/": ({"inputs": "cats"}, TEI),
}


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("error", [QueueFullError("full", retry_after_s=7), RuntimeError("secret"), None])
async def test_every_error_has_the_body_of_the_dialect_of_its_path(
    client: httpx.AsyncClient, inference: FakeInference, path: str, error: Exception | None
) -> None:
    inference.error = error
    reply = await client.post(path, json=CALLS[path][0] if error else {"foo": 1})
    invalid = 422 if CALLS[path][1] == NATIVE else 400
    assert reply.status_code == {QueueFullError: 429, RuntimeError: 500, type(None): invalid}[type(error)]
    body = reply.json()
    assert sorted(set(body) - {"error_id"}) == CALLS[path][1]
    if CALLS[path][1] == OPENAI:
        assert sorted(set(body["error"]) - {"error_id"}) == ["code", "message", "param", "type"]
    assert reply.text.count("error_id") == (reply.status_code == 500)
    assert "secret" not in reply.text
    assert reply.headers.get("retry-after") == ("7" if reply.status_code == 429 else None)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/v1/nothing", 404), ("GET", "/v2/nothing", 404), ("GET", "/v1/embeddings", 405)],
)
async def test_an_unknown_path_below_v1_and_v2_has_an_openai_error_body(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    reply = await client.request(method, path)
    assert (reply.status_code, sorted(reply.json())) == (status, OPENAI)
    assert reply.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(("path", "keys"), [("/v1/embeddings", OPENAI), ("/embed", TEI), ("/vectorize", NATIVE)])
async def test_a_body_that_is_rejected_unread_gets_the_same_error_body(
    app: FastAPI, path: str, keys: list[str]
) -> None:
    size = LIMITS.max_body_bytes + 1
    too_large = Connection([b" " * size], {"content-length": str(size)}, path)
    await too_large.through(app)
    assert (too_large.status, sorted(too_large.body)) == (413, keys)
    no_json = Connection([b"{"], path=path)
    await no_json.through(app)
    assert (no_json.status, sorted(no_json.body)) == (422 if keys == NATIVE else 400, keys)


@pytest.mark.parametrize(
    ("form", "keys"),
    [({"candidates": ["b", ""]}, NATIVE), ({"documents": ["b", ""]}, OPENAI), ({"texts": ["b", ""]}, TEI)],
)
@pytest.mark.parametrize("error", [None, QueueFullError("full")])
async def test_an_error_of_rerank_has_the_dialect_of_the_request_body(
    client: httpx.AsyncClient,
    inference: FakeInference,
    form: dict[str, list[str]],
    keys: list[str],
    error: Exception | None,
) -> None:
    inference.error = error
    body = {"query": "a"} | ({name: ["b"] for name in form} if error else form)
    reply = await client.post("/rerank", json=body)
    assert sorted(reply.json()) == keys
    assert reply.status_code == (429 if error else 422 if keys == NATIVE else 400)
    assert error or "[1]: must not be empty" in reply.json()["detail"]


async def test_a_root_path_does_not_select_a_dialect(app: FastAPI) -> None:
    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": "/v1", "path": "/v1" + scope["path"]}, receive, send)

    connection = Connection([b"{}"], path="/vectorize")
    await connection.through(mounted)
    assert (connection.status, sorted(connection.body)) == (422, NATIVE)


@pytest.mark.parametrize(
    ("status", "code", "detail", "kind", "param"),
    [
        (422, "invalid_input", "input[3]: must not be empty or blank", "invalid_request_error", "input[3]"),
        (
            422,
            "invalid_input",
            "documents[1].text: blank; query: too long",
            "invalid_request_error",
            "documents[1].text",
        ),
        (422, "invalid_input", "body: not valid JSON", "invalid_request_error", None),
        (422, "invalid_input", "header Accept: dtype may be", "invalid_request_error", None),
        (404, "model_not_found", "no model 'input: x' is served", "invalid_request_error", "model"),
        (404, "not_found", "Not Found", "invalid_request_error", None),
        (401, "unauthenticated", "no key", "authentication_error", None),
        (408, "deadline_passed", "too late", "timeout_error", None),
        (429, "queue_full", "full: wait", "rate_limit_error", None),
        (503, "unavailable", "no replica", "server_error", None),
    ],
)
def test_an_openai_error_has_the_type_and_the_field(
    status: int, code: str, detail: str, kind: str, param: str | None
) -> None:
    body = openai_error_body(Failure(status, code, detail))
    error = {"message": detail, "type": kind, "param": param, "code": code}
    assert body == {"error": error, "message": detail, "detail": detail}


@pytest.mark.parametrize(
    ("error", "kind"),
    [(QueueFullError("x"), "Overloaded"), (UnavailableError("x"), "Unhealthy"), (InternalError("x"), "Backend")],
)
async def test_a_tei_error_has_an_error_type(
    client: httpx.AsyncClient, inference: FakeInference, error: ServiceError, kind: str
) -> None:
    inference.error = error
    assert (await client.post("/embed", json={"inputs": "a"})).json()["error_type"] == kind
    assert (await client.post("/embed", json={"inputs": ""})).json() == {
        "error": "inputs: must not be empty",
        "error_type": "Validation",
        "message": "inputs: must not be empty",
        "detail": "inputs: must not be empty",
        "code": "invalid_input",
    }
