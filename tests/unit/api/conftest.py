from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from serve_app.api.application import create_app
from serve_app.domain.limits import FineTuneLimits, Limits
from tests.unit.api.fake_gateway import FakeGateway
from tests.unit.api.fake_jobs import FakeJobs

LIMITS = Limits(max_body_bytes=300_000, max_items=5, max_text_chars=100, request_timeout_s=30.0)


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def statuses() -> list[tuple[str, int]]:
    """What the application counts: path and status of every response."""
    return []


@pytest.fixture
def app(gateway: FakeGateway, statuses: list[tuple[str, int]]) -> FastAPI:
    return create_app(
        gateway, FakeJobs(), LIMITS, FineTuneLimits(), count_status=lambda path, status: statuses.append((path, status))
    )


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks to the application in this process; what the application raises fails the test."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service") as client:
        yield client
