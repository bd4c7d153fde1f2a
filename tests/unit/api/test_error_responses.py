"""Every error of the contract: status, code, headers, and no internal details."""

from __future__ import annotations

import logging

import httpx
import pytest

from serve_app.api.error_responses import error_response
from serve_app.api.violations import field_name
from serve_app.domain.errors import (
    CapabilityError,
    DeadlineError,
    InternalError,
    InvalidInputError,
    ModelNotFoundError,
    NonFiniteError,
    OutOfMemoryError,
    QueueFullError,
    ServiceError,
    UnavailableError,
)
from tests.unit.api.fake_inference import FakeInference

ROUTES = [("/vectorize", {"text": "cats"}), ("/vectorize-batch", {"items": ["cats", "dogs"]})]


@pytest.mark.parametrize(("path", "body"), ROUTES)
@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (CapabilityError("no sparse vectors"), 400, "capability_missing", None),
        (ModelNotFoundError("no such model"), 404, "model_not_found", None),
        (DeadlineError("too late"), 408, "deadline_passed", None),
        (InvalidInputError("too long"), 422, "invalid_input", None),
        (QueueFullError("full"), 429, "queue_full", "1"),
        (QueueFullError("full", retry_after_s=12.2), 429, "queue_full", "13"),
        (NonFiniteError("no finite vector"), 500, "non_finite", None),
        (OutOfMemoryError("too long for the device"), 503, "out_of_memory", None),
        (UnavailableError("no replica"), 503, "unavailable", "2"),
        (UnavailableError("no replica", retry_after_s=0.01), 503, "unavailable", "1"),
    ],
)
async def test_an_expected_error_has_its_status_code_message_and_time_to_wait(
    client: httpx.AsyncClient,
    inference: FakeInference,
    path: str,
    body: object,
    error: ServiceError,
    status: int,
    code: str,
    retry_after: str | None,
) -> None:
    inference.error = error
    reply = await client.post(path, json=body)
    assert reply.status_code == status
    assert reply.json() == {"detail": error.message, "code": code}
    assert reply.headers.get("retry-after") == retry_after


@pytest.mark.parametrize(
    ("path", "body", "item", "name"),
    [
        ("/vectorize", {"text": "cats"}, 0, "text"),
        ("/vectorize-batch", {"items": ["cats", "dogs"]}, 1, "items[1]"),
        ("/vectorize-batch", {"items": {"a": "cats", "b'": "dogs"}}, 1, 'items["b\'"]'),
        ("/vectorize-batch", {"items": [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]}, 1, "items[1].text"),
    ],
)
async def test_an_error_of_one_text_names_it_as_the_client_does(
    client: httpx.AsyncClient, inference: FakeInference, path: str, body: object, item: int, name: str
) -> None:
    inference.error = InvalidInputError("600 tokens, the model's limit is 512", item=item)
    reply = await client.post(path, json=body)
    assert reply.json()["detail"] == f"{name}: 600 tokens, the model's limit is 512"


@pytest.mark.parametrize(("path", "body"), ROUTES)
@pytest.mark.parametrize(
    "error", [RuntimeError("secret 4711"), InternalError("secret 4711"), MemoryError("secret 4711")]
)
async def test_an_unexpected_error_shows_an_id_and_no_details(
    client: httpx.AsyncClient,
    inference: FakeInference,
    caplog: pytest.LogCaptureFixture,
    path: str,
    body: object,
    error: Exception,
) -> None:
    inference.error = error
    with caplog.at_level(logging.ERROR):
        reply = await client.post(path, json=body)
    assert reply.status_code == 500
    received = reply.json()
    assert sorted(received) == ["code", "detail", "error_id"]
    assert (received["detail"], received["code"]) == ("internal error", "internal_error")
    assert "4711" not in reply.text
    assert "Traceback" not in reply.text
    (record,) = [record for record in caplog.records if received["error_id"] in record.getMessage()]
    assert record.exc_info is not None
    assert record.exc_info[1] is error


async def test_every_unexpected_error_has_another_id(client: httpx.AsyncClient, inference: FakeInference) -> None:
    inference.error = RuntimeError()
    ids = [(await client.post("/vectorize", json={"text": "a"})).json()["error_id"] for _ in range(3)]
    assert len(set(ids)) == 3


async def test_an_unknown_path_and_a_wrong_method_have_the_same_error_body(client: httpx.AsyncClient) -> None:
    reply = await client.post("/vectorise", json={"text": "cats"})
    detail = "there is no route POST /vectorise; did you mean POST /vectorize?"
    assert (reply.status_code, reply.json()) == (404, {"detail": detail, "code": "not_found"})
    reply = await client.get("/vectorize")
    detail = "GET is not allowed for /vectorize; use POST"
    assert (reply.status_code, reply.json()) == (405, {"detail": detail, "code": "method_not_allowed"})
    assert reply.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ((), "body"),
        (("body",), "body"),
        (("body", "text"), "text"),
        (("body", "items", "<strings>", 3), "items[3]"),
        (("body", "items", "<records>", 3, "text"), "items[3].text"),
        (("body", "items", "<map>", "<k>"), "items.<k>"),
        (("body", 12), "position 12"),
        (("header", "x"), "header.x"),
    ],
)
def test_a_field_is_named_as_it_is_written_in_a_program(location: tuple[int | str, ...], name: str) -> None:
    assert field_name(location) == name


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (1.0, "1"), (1.01, "2"), (60.0, "60")])
def test_time_to_wait_is_rounded_up_to_whole_seconds(seconds: float, header: str) -> None:
    assert error_response(429, "queue_full", "full", retry_after_s=seconds).headers["retry-after"] == header
