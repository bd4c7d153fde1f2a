"""Cross-site requests: own and allowed origins may send unsafe requests, others may not."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import cast

import httpx
import pytest
from fastapi import FastAPI

from serve_app.api.application import create_app
from serve_app.api.jobs_protocol import JobsProtocol
from serve_app.domain.request_limits import FineTuneLimits, Limits
from tests.unit.api.delegate import Delegate
from tests.unit.api.fake_inference import FakeInference
from tests.unit.api.fake_jobs import FakeJobs

FRIEND = "https://app.example.com"
STRANGER = "https://evil.example"
OURS = "http://service:8000"
UPLOAD = {"file": ("pairs.tsv", b"q\tp\n")}


@cache
def app_of(allowed: tuple[str, ...]) -> tuple[FastAPI, Delegate]:
    """An application, and what passes calls on to the jobs."""
    jobs = Delegate()
    return create_app(FakeInference(), cast(JobsProtocol, jobs), Limits(), FineTuneLimits(), cors_origins=allowed), jobs


async def ask(
    folder: Path, headers: dict[str, str], allowed: tuple[str, ...] = (FRIEND,), method: str = "POST"
) -> tuple[int, int]:
    """Sends a form that a browser sends without asking for leave; the status, and how many files are kept."""
    jobs = FakeJobs(folder / "jobs")
    app, behind = app_of(allowed)
    behind.target = jobs
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=OURS) as client:
        if method == "POST":
            reply = await client.post("/v1/files", files=UPLOAD, data={"purpose": "fine-tune"}, headers=headers)
        else:
            reply = await client.request(method, "/v1/files", headers=headers)
    if reply.status_code == 403:
        assert reply.json()["error"]["code"] == "foreign_origin"
        assert "security.cors_origins" in reply.json()["error"]["message"]
    return reply.status_code, len(jobs.uploads.page(limit=9, after=None, newest_first=True))


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": STRANGER},
        {"Origin": "null"},  # a sandboxed frame
        {"Origin": "http://service"},  # another port
        {"Origin": STRANGER, "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://other.service:8000", "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": f"{FRIEND}.evil.example"},
        {"Origin": FRIEND.upper()},
        {"Origin": "http://["},
        {"Origin": ""},
    ],
)
async def test_a_page_of_another_site_sets_nothing_off(tmp_path: Path, headers: dict[str, str]) -> None:
    assert await ask(tmp_path, headers) == (403, 0)


@pytest.mark.parametrize(
    "headers",
    [
        {},  # no browser
        {"Origin": OURS},
        {"Origin": "https://service:8000"},  # TLS ends at a proxy
        {"Origin": "https://public.example", "Sec-Fetch-Site": "same-origin"},  # the proxy has changed the host, too
        {"Sec-Fetch-Site": "none"},
        {"Origin": FRIEND},
        {"Origin": FRIEND, "Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_own_pages_allowed_pages_and_other_clients_are_served(tmp_path: Path, headers: dict[str, str]) -> None:
    assert await ask(tmp_path, headers) == (200, 1)


async def test_every_page_is_served_with_a_wildcard(tmp_path: Path) -> None:
    assert await ask(tmp_path, {"Origin": STRANGER, "Sec-Fetch-Site": "cross-site"}, ("*",)) == (200, 1)


async def test_a_page_may_send_safe_requests_and_cors_hides_the_reply(tmp_path: Path) -> None:
    assert (await ask(tmp_path, {"Origin": STRANGER, "Sec-Fetch-Site": "cross-site"}, (), method="GET"))[0] == 200
