from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from serve_app.api.application import create_app
from serve_app.api.service import ServiceProtocol
from serve_app.domain.request_limits import FineTuneLimits, Limits
from tests.unit.api.fake_gateway import FakeGateway
from tests.unit.api.fake_jobs import FakeJobs

LIMITS = Limits(max_body_bytes=300_000, max_items=5, max_text_chars=100, max_request_tokens=400, request_timeout_s=30.0)


class Behind:
    """What stands behind the one application of all tests: in each of them a gateway and a list of its own.

    To make an application takes longer than most tests.
    """

    def __init__(self) -> None:
        self.gateway = FakeGateway()
        self.statuses: list[tuple[str, int]] = []
        self.app = create_app(
            cast(ServiceProtocol, self),
            FakeJobs(),
            LIMITS,
            FineTuneLimits(),
            count_status=lambda *status: self.count(status),
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.gateway, name)

    def count(self, status: tuple[str, int]) -> None:
        self.statuses.append(status)


@pytest.fixture(scope="session")
def behind() -> Behind:
    return Behind()


@pytest.fixture
def gateway(behind: Behind) -> FakeGateway:
    behind.gateway = FakeGateway()
    return behind.gateway


@pytest.fixture
def statuses(behind: Behind) -> list[tuple[str, int]]:
    """What the application counts: path and status of every response."""
    behind.statuses = []
    return behind.statuses


@pytest.fixture
def app(behind: Behind, gateway: FakeGateway, statuses: list[tuple[str, int]]) -> FastAPI:
    return behind.app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks to the application in this process; what the application raises fails the test."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service") as client:
        yield client
