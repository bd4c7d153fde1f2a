"""Errors of paths, methods and patterns suggest what to do, in the dialect of the path."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from serve_app.api.field_patterns import IN_WORDS
from serve_app.api.route_index import RouteIndex


def test_the_index_knows_every_route_of_the_application(app: FastAPI) -> None:
    described = set(app.openapi()["paths"])
    known = {path.replace(":path", "") for path in RouteIndex(app.routes).paths}
    assert described | {"/docs", "/redoc", "/openapi.json"} <= known


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/vectorise", "did you mean POST /vectorize?"),
        ("/Vectorize", "did you mean POST /vectorize?"),
        ("/vectorize_batch", "did you mean POST /vectorize-batch"),
        ("/v1/embedding", "POST /v1/embeddings"),
        ("/v1/v1/embeddings", "POST /v1/embeddings"),
        ("/v1/reranking", "POST /v1/rerank"),
        ("/train_status/123", "GET /train-status/{job_id}"),
        ("/v1/fine-tuning/jobs/abc/cancel", "POST /v1/fine_tuning/jobs/{job_id}/cancel"),
        ("/v1/chat/completions", "GET /docs lists all routes"),
        ("/static-offline-docs/none.js", "GET /docs lists all routes"),
        ("/" + "x" * 8000, "GET /docs lists all routes"),
    ],
)
async def test_a_wrong_path_names_the_near_one(client: httpx.AsyncClient, path: str, hint: str) -> None:
    reply = await client.get(path)
    received = reply.json()
    assert reply.status_code == 404
    message = received["error"]["message"] if path.startswith("/v1/") else received["detail"]
    assert hint in message
    assert len(message) < 400


def test_a_path_is_compared_once_and_only_with_similar_ones(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    index = RouteIndex(app.routes)
    compared: list[str] = []
    ratio = difflib.SequenceMatcher.ratio
    monkeypatch.setattr(difflib.SequenceMatcher, "ratio", lambda self: compared.append(self.b) or ratio(self))
    for _ in range(2):
        assert index.near("/v1/fine-tuning/jobs/00000000-0000-0000-0000-000000000000/cancel") == [
            "POST /v1/fine_tuning/jobs/{job_id}/cancel"
        ]
    assert 1 <= len(compared) <= len(index.paths) // 2
    assert max(map(len, compared)) <= 60


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("GET", "/vectorize", ["POST"]),
        ("PUT", "/v1/embeddings", ["POST"]),
        ("POST", "/models/my-e5", ["GET", "DELETE"]),
        ("PATCH", "/embed", ["POST"]),
    ],
)
async def test_a_wrong_method_names_every_right_one(
    client: httpx.AsyncClient, method: str, path: str, right: list[str]
) -> None:
    reply = await client.request(method, path)
    assert reply.status_code == 405
    received = json.dumps(reply.json())
    assert f"{method} is not allowed for {path}; use " in received
    for name in right:
        assert name in reply.headers["allow"].split(", ")
        assert name in received.partition("; use ")[2]


def patterns(schema: Any) -> Iterator[str]:
    """Every pattern in a schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        for value in schema.values():
            yield from patterns(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from patterns(value)


def test_every_pattern_has_a_sentence(app: FastAPI) -> None:
    only_described = {r"\S"}  # of texts; the message for blank ones is ours
    assert set(patterns(app.openapi())) - only_described == set(IN_WORDS)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/fine-tune", {"model_name": "../x", "text_content": "a\tb"}),
        ("/fine-tune-lora", {"model_name": "ä" * 101, "text_content": "a\tb"}),
        ("/v1/fine_tuning/jobs/1/events?after=x", None),
    ],
)
async def test_a_pattern_is_described_by_its_sentence(client: httpx.AsyncClient, path: str, body: Any) -> None:
    reply = await client.request("GET" if body is None else "POST", path, json=body)
    assert reply.status_code in {400, 422}
    assert any(words in json.dumps(reply.json()) for words in IN_WORDS.values())
    assert "^[" not in reply.text
    assert "pattern" not in reply.text
