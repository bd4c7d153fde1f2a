"""The end of a service: whoever is inside is answered, and nobody is let in any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from serve_app.api.middleware.drain import DrainMiddleware, DrainState


class House:
    """An application behind a door, whose answers wait until they may."""

    def __init__(self) -> None:
        self.door, self.may_answer = DrainState(), asyncio.Event()
        app = FastAPI()
        app.add_middleware(DrainMiddleware, door=self.door)

        @app.get("/wait")
        async def wait() -> dict[str, str]:
            await self.may_answer.wait()
            return {}

        @app.get("/{kind}")
        async def stream(kind: str) -> StreamingResponse:
            return StreamingResponse(self._pieces(), media_type=f"{'text' if kind == 'event-stream' else 'app'}/{kind}")

        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://house")

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield b"a"
        await self.may_answer.wait()
        yield b"b"

    async def ask(self, path: str) -> asyncio.Task[httpx.Response]:
        request = asyncio.create_task(self.client.get(path))
        await asyncio.sleep(0.01)
        return request


async def test_who_is_inside_is_answered_and_nobody_else_is_let_in() -> None:
    house = House()
    inside = await house.ask("/wait")
    closing = asyncio.create_task(house.door.close())
    await asyncio.sleep(0.01)
    late = await house.client.get("/wait")
    assert (late.status_code, late.json()["code"]) == (503, "unavailable")
    assert (late.headers["retry-after"], late.headers["connection"]) == ("2", "close")
    assert not closing.done()
    house.may_answer.set()
    assert (await inside).status_code == 200
    await asyncio.wait_for(closing, 1)
    await asyncio.wait_for(DrainState().close(), 1)


@pytest.mark.parametrize(("path", "inside"), [("/event-stream", 0), ("/json", 1)])
async def test_a_stream_of_events_is_not_waited_for_and_any_other_reply_is(path: str, inside: int) -> None:
    house = House()
    request = await house.ask(path)
    assert house.door.inside == inside
    house.may_answer.set()
    assert (await request).text == "ab"
    assert house.door.inside == 0


async def test_who_breaks_off_is_inside_no_more() -> None:
    house = House()
    request = await house.ask("/wait")
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    assert house.door.inside == 0
