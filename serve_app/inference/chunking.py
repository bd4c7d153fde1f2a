"""Chunked calls: a large request is sent in parts, a few in flight at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from serve_app.domain.errors import QueueFullError

CHUNK_TOKENS = 8192
_IN_FLIGHT = 4
_MAX_PAUSE_S = 1.0

A = TypeVar("A")


async def gather_chunks(parts: Sequence[slice], send: Callable[[slice], Awaitable[A]]) -> list[A]:
    """The answers to all parts, in order.

    If the backlog is full at the first part, the request fails; later parts wait and are sent again. The first error
    cancels the other parts.

    Args:
        parts: Slices of the request, at least one.
        send: Sends one part; raises ``QueueFullError`` if the backlog is full.

    Raises:
        ServiceError: Raised by ``send``.
    """
    gate = asyncio.Semaphore(_IN_FLIGHT)

    async def send_part(part: slice) -> A:
        async with gate:
            while True:
                try:
                    return await send(part)
                except QueueFullError as error:
                    if part is parts[0]:
                        raise
                    await asyncio.sleep(min(_MAX_PAUSE_S, error.retry_after_s or _MAX_PAUSE_S))

    tasks = [asyncio.ensure_future(send_part(part)) for part in parts]
    try:
        return await asyncio.gather(*tasks)
    finally:  # one failed, or the client disconnected: the others are not needed
        for task in tasks:
            task.cancel()
