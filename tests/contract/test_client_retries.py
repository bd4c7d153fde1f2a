"""A client that was told that the queue is full comes back by itself, when it was told to."""

from __future__ import annotations

import time
from collections.abc import Sequence

import cohere
import httpx
import openai
import pytest

from serve_app.api.application import create_app
from serve_app.api.inference_results import CallOptions, Embedded
from serve_app.domain.errors import QueueFullError
from serve_app.domain.profiles import TextRole
from serve_app.domain.request_limits import FineTuneLimits, Limits
from tests.unit.api.fake_inference import FakeInference, vector_of
from tests.unit.api.fake_jobs import FakeJobs


class FullOnce(FakeInference):
    """Has no room for the first request."""

    def __init__(self) -> None:
        super().__init__()
        self.error = QueueFullError("the queue is full", retry_after_s=2)

    async def embed(self, texts: Sequence[str], role: TextRole | None, options: CallOptions) -> Embedded:
        try:
            return await super().embed(texts, role, options)
        finally:
            self.error = None


@pytest.fixture
def gateway() -> FullOnce:
    return FullOnce()


@pytest.fixture
def http(gateway: FullOnce) -> httpx.AsyncClient:
    app = create_app(gateway, FakeJobs(), Limits(), FineTuneLimits())
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app))


async def test_openais_client_waits_as_long_as_it_was_told(gateway: FullOnce, http: httpx.AsyncClient) -> None:
    began = time.monotonic()
    async with openai.AsyncOpenAI(base_url="http://service/v1", api_key="any", http_client=http) as client:
        reply = await client.embeddings.create(model="my-e5", input="cats")
    assert reply.data[0].embedding == pytest.approx(vector_of("cats").tolist())
    assert len(gateway.asked) == 2
    assert time.monotonic() - began > 1.9


async def test_coheres_client_waits_as_long_as_it_was_told(gateway: FullOnce, http: httpx.AsyncClient) -> None:
    began = time.monotonic()
    async with cohere.AsyncClientV2(api_key="any", base_url="http://service", httpx_client=http) as client:
        reply = await client.embed(model="my-e5", texts=["cats"], input_type="search_query")
    assert reply.embeddings.float_[0] == pytest.approx(vector_of("cats").tolist())
    assert len(gateway.asked) == 2
    assert time.monotonic() - began > 1.9


async def test_openais_client_raises_its_own_error_when_it_may_not_come_back(http: httpx.AsyncClient) -> None:
    client = openai.AsyncOpenAI(base_url="http://service/v1", api_key="any", http_client=http, max_retries=0)
    with pytest.raises(openai.RateLimitError) as caught:
        await client.embeddings.create(model="my-e5", input="cats")
    assert (caught.value.code, caught.value.response.headers["retry-after"]) == ("queue_full", "2")
