"""Requests as real clients of other services send them (``tests/data/wire.jsonl``), and what their clients need back.

A case has a name, method, path, headers and body (JSON, or ``raw`` text), ``status`` (a number or a list of them) and
``check``, an expression over ``r`` (the decoded reply), ``h`` (its headers), ``call(path, body)`` (another request's
decoded reply) and ``close(a, b)`` (two vectors, cosine above 0.9999).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from tests.service_process import Service

CASES = Path(__file__).parents[1] / "data" / "wire.jsonl"


def close(a: list[float], b: list[float]) -> bool:
    left, right = np.array(a), np.array(b)
    return bool(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)) > 0.9999)


def decoded(reply: httpx.Response) -> Any:
    try:
        return reply.json()
    except ValueError:
        return reply.text


def complaint(client: httpx.Client, case: dict[str, Any]) -> str | None:
    """What is wrong with the reply to a case."""
    content = case["raw"].encode() if "raw" in case else json.dumps(case["body"]).encode() if "body" in case else None
    headers = {"Content-Type": "application/json", **case.get("headers", {})}
    reply = client.request(case.get("method", "POST"), case["path"], content=content, headers=headers)
    wanted = case.get("status", 200)
    told = f"{reply.status_code} {reply.text[:200]}"
    if reply.status_code not in (wanted if isinstance(wanted, list) else [wanted]):
        return told

    def call(path: str, body: Any) -> Any:
        return decoded(client.post(path, json=body))

    names = {"r": decoded(reply), "h": reply.headers, "call": call, "close": close, "math": math, "len": len}
    return None if eval(case.get("check", "True"), names) else told


def test_every_case_is_as_its_client_needs_it(service: Service) -> None:
    cases = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    assert len(cases) == 51
    with httpx.Client(base_url=service.url, timeout=120) as client:
        found = {case["name"]: complaint(client, case) for case in cases}
    assert {name: told for name, told in found.items() if told is not None} == {}
