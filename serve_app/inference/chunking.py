"""A large request in pieces, a few under way at once: it neither floods a backlog nor hides its length from it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from serve_app.domain.errors import QueueFullError

CHUNK_TOKENS = 8192
_UNDER_WAY = 4
_LONGEST_PAUSE_S = 1.0

A = TypeVar("A")


async def gather_chunks(parts: Sequence[slice], send: Callable[[slice], Awaitable[A]]) -> list[A]:
    """The answers to all parts, in order.

    If there is no room for the first part there is none for the request; later ones wait for their place. The first
    error ends the others.

    Args:
        parts: At least one.
        send: Asks for one part; raises ``QueueFullError`` where there is no room.

    Raises:
        ServiceError: What ``send`` raised.
    """
    gate = asyncio.Semaphore(_UNDER_WAY)

    async def ask(part: slice) -> A:
        async with gate:
            while True:
                try:
                    return await send(part)
                except QueueFullError as error:
                    if part is parts[0]:
                        raise
                    await asyncio.sleep(min(_LONGEST_PAUSE_S, error.retry_after_s or _LONGEST_PAUSE_S))

    tasks = [asyncio.ensure_future(ask(part)) for part in parts]
    try:
        return await asyncio.gather(*tasks)
    finally:  # one failed, or the client left: the others are not wanted any more
        for task in tasks:
            task.cancel()
