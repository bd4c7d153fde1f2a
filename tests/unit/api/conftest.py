from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from serve_app.api.application import create_app
from serve_app.api.inference_protocol import InferenceProtocol
from serve_app.domain.request_limits import FineTuneLimits, Limits
from tests.unit.api.fake_inference import FakeInference
from tests.unit.api.fake_jobs import FakeJobs

LIMITS = Limits(max_body_bytes=300_000, max_items=5, max_text_chars=100, max_request_tokens=400, request_timeout_s=30.0)


class SharedApplication:
    """The one application of all tests, because building it takes longer than most of them; each has its own fakes."""

    def __init__(self) -> None:
        self.inference = FakeInference()
        self.statuses: list[tuple[str, int]] = []
        self.app = create_app(
            cast(InferenceProtocol, self),
            FakeJobs(),
            LIMITS,
            FineTuneLimits(),
            count_status=lambda *status: self.count(status),
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inference, name)

    def count(self, status: tuple[str, int]) -> None:
        self.statuses.append(status)


@pytest.fixture(scope="session")
def shared() -> SharedApplication:
    return SharedApplication()


@pytest.fixture
def inference(shared: SharedApplication) -> FakeInference:
    shared.inference = FakeInference()
    return shared.inference


@pytest.fixture
def statuses(shared: SharedApplication) -> list[tuple[str, int]]:
    """Path and status of every response, as counted by the application."""
    shared.statuses = []
    return shared.statuses


@pytest.fixture
def app(shared: SharedApplication, inference: FakeInference, statuses: list[tuple[str, int]]) -> FastAPI:
    return shared.app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application in this process; an exception of the application fails the test."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service") as client:
        yield client
