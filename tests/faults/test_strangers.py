"""A service with API keys: what each key opens, and that nobody's key is written down."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest

from serve_app.api.middleware.api_key_auth import OPEN, scope_for
from serve_app.security.api_keys import Scope
from tests.keyed import ADMIN, KEYS, UNKNOWN, USE, bearer
from tests.service_process import Service

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ADMIN_ONLY = {
    ("POST", "/fine-tune"),
    ("POST", "/fine-tune-lora"),
    ("GET", "/train-status/{job_id}"),
    ("GET", "/jobs"),
    ("GET", "/jobs/{job_id}"),
    ("DELETE", "/jobs/{job_id}"),
    ("POST", "/jobs/{job_id}/cancel"),
    ("GET", "/jobs/{job_id}/events"),
    ("GET", "/jobs/{job_id}/logs"),
    ("GET", "/jobs/{job_id}/loss.svg"),
    ("DELETE", "/models/{name}"),
    ("DELETE", "/v1/models/{id}"),
    ("GET", "/v1/files"),
    ("POST", "/v1/files"),
    ("GET", "/v1/files/{file_id}"),
    ("DELETE", "/v1/files/{file_id}"),
    ("GET", "/v1/files/{file_id}/content"),
    ("GET", "/v1/fine_tuning/jobs"),
    ("POST", "/v1/fine_tuning/jobs"),
    ("GET", "/v1/fine_tuning/jobs/{job_id}"),
    ("POST", "/v1/fine_tuning/jobs/{job_id}/cancel"),
    ("GET", "/v1/fine_tuning/jobs/{job_id}/events"),
    ("GET", "/v1/fine_tuning/jobs/{job_id}/checkpoints"),
}


@pytest.fixture
def client(exposed: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=exposed.url, timeout=60) as client:
        yield client


def documented(client: httpx.Client) -> Sequence[tuple[str, str]]:
    paths: dict[str, dict[str, Any]] = client.get("/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, operations in paths.items() for method in operations]


def filled(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "anything", path)


def test_without_a_known_key_nothing_answers_but_what_is_open(client: httpx.Client) -> None:
    paths = {path for _, path in documented(client)}
    assert len(paths) > 20
    for path in paths:
        for method in METHODS:
            expected_open = method in {"GET", "HEAD"} and path in OPEN
            for headers in ({}, bearer(UNKNOWN), {"X-API-Key": UNKNOWN}):
                reply = client.request(method, filled(path), headers=headers)
                assert (reply.status_code == 401) != expected_open, (method, path, reply.status_code)
                assert reply.status_code < 500


def test_a_key_for_use_opens_no_route_of_the_operators(client: httpx.Client) -> None:
    refused = set()
    for method, path in documented(client):
        reply = client.request(method, filled(path), headers=bearer(USE))
        assert reply.status_code < 500
        assert reply.status_code != 401
        if reply.status_code == 403:
            refused.add((method, re.sub(r":path\}", "}", path)))
    assert refused == ADMIN_ONLY


def test_an_operators_key_opens_everything(client: httpx.Client) -> None:
    for method, path in documented(client):
        reply = client.request(method, filled(path), headers=bearer(ADMIN))
        assert reply.status_code not in {401, 403}, (method, path)
        assert reply.status_code < 500


def test_the_door_agrees_with_the_document(client: httpx.Client) -> None:
    """What the document says of a route's key is what the door asks for."""
    for method, path in documented(client):
        assert (scope_for(method, filled(path)) is Scope.ADMIN) == ((method, path) in ADMIN_ONLY)


def test_no_key_stands_in_any_log(exposed: Service, client: httpx.Client) -> None:
    for secret in (USE, ADMIN, UNKNOWN):
        for headers in (bearer(secret), {"X-API-Key": secret}, {"Authorization": secret}):
            for method, path, body in (
                ("POST", "/vectorize", {"text": "whose key is this?"}),
                ("POST", "/vectorize", {"txet": "a mistake"}),
                ("POST", "/rerank", {"query": "a", "candidates": ["b"], "model": "nowhere"}),
                ("DELETE", "/models/anything", None),
                ("GET", "/nowhere", None),
            ):
                client.request(method, path, headers=headers, json=body)
    told = f"API key {KEYS[USE].name}: POST /vectorize 200".encode()
    deadline = time.monotonic() + 10
    while not any(told in file.read_bytes() for file in exposed.logs()):  # a log is flushed every second
        assert time.monotonic() < deadline, "the requests are in no log"
        time.sleep(0.5)
    hidden = [*map(str.encode, (*KEYS, UNKNOWN)), *(key.sha256.encode() for key in KEYS.values())]
    leaks = [file for file in exposed.logs() if any(word in file.read_bytes() for word in hidden)]
    assert leaks == []
