"""Large requests in pieces: order, bounds, and who decides whether there is room."""

from __future__ import annotations

import asyncio

import pytest

from serve_app.domain.errors import NonFiniteError, QueueFullError
from serve_app.inference.chunking import gather_chunks

PARTS = [slice(i, i + 1) for i in range(9)]


async def test_answers_come_in_the_order_of_the_parts_and_four_are_under_way() -> None:
    under_way = most = 0

    async def send(part: slice) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.002 * (9 - part.start))
        under_way -= 1
        return part.start

    assert await gather_chunks(PARTS, send) == list(range(9))
    assert most == 4


async def test_if_the_first_part_is_refused_the_rest_is_not_sent() -> None:
    sent: list[int] = []

    async def send(part: slice) -> int:
        sent.append(part.start)
        await asyncio.sleep(0)
        raise QueueFullError("full", retry_after_s=60)

    with pytest.raises(QueueFullError):
        await asyncio.wait_for(gather_chunks(PARTS, send), 1)
    await asyncio.sleep(0.01)
    assert len(sent) <= 5, "no part of a refused request is sent"


async def test_later_parts_wait_for_their_place() -> None:
    refused: set[int] = set()

    async def send(part: slice) -> int:
        if part.start and part.start not in refused:
            refused.add(part.start)
            raise QueueFullError("full", retry_after_s=0.001)
        return part.start

    assert await asyncio.wait_for(gather_chunks(PARTS, send), 5) == list(range(9))


async def test_an_error_of_one_part_ends_the_others_at_once() -> None:
    ended = []

    async def send(part: slice) -> int:
        if part.start == 2:
            raise NonFiniteError("no", item=2)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(part.start)
            raise
        return 0

    with pytest.raises(NonFiniteError):
        await asyncio.wait_for(gather_chunks(PARTS, send), 1)
    await asyncio.sleep(0)
    assert ended[:3] == [0, 1, 3]
    assert len(ended) <= 4
