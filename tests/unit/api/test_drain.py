"""Draining: requests in flight are answered, new ones are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from serve_app.api.middleware.drain import DrainMiddleware, DrainState


class SlowService:
    """An application whose replies wait for an event."""

    def __init__(self) -> None:
        self.drain, self.may_answer = DrainState(), asyncio.Event()
        app = FastAPI()
        app.add_middleware(DrainMiddleware, drain=self.drain)

        @app.get("/wait")
        async def wait() -> dict[str, str]:
            await self.may_answer.wait()
            return {}

        @app.get("/{kind}")
        async def stream(kind: str) -> StreamingResponse:
            return StreamingResponse(self._pieces(), media_type=f"{'text' if kind == 'event-stream' else 'app'}/{kind}")

        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield b"a"
        await self.may_answer.wait()
        yield b"b"

    async def ask(self, path: str) -> asyncio.Task[httpx.Response]:
        request = asyncio.create_task(self.client.get(path))
        await asyncio.sleep(0.01)
        return request


async def test_a_request_in_flight_is_answered_and_a_new_one_refused() -> None:
    service = SlowService()
    in_flight = await service.ask("/wait")
    closing = asyncio.create_task(service.drain.close())
    await asyncio.sleep(0.01)
    late = await service.client.get("/wait")
    assert (late.status_code, late.json()["code"]) == (503, "unavailable")
    assert (late.headers["retry-after"], late.headers["connection"]) == ("2", "close")
    assert not closing.done()
    service.may_answer.set()
    assert (await in_flight).status_code == 200
    await asyncio.wait_for(closing, 1)
    await asyncio.wait_for(DrainState().close(), 1)


@pytest.mark.parametrize(("path", "in_flight"), [("/event-stream", 0), ("/json", 1)])
async def test_an_event_stream_does_not_delay_the_end_and_any_other_reply_does(path: str, in_flight: int) -> None:
    service = SlowService()
    request = await service.ask(path)
    assert service.drain.in_flight == in_flight
    service.may_answer.set()
    assert (await request).text == "ab"
    assert service.drain.in_flight == 0


async def test_a_request_of_a_disconnected_client_is_not_in_flight() -> None:
    service = SlowService()
    request = await service.ask("/wait")
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    assert service.drain.in_flight == 0
