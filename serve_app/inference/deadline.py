"""The deadline of a request, while it is tokenised and while it waits for a replica."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from serve_app.domain.errors import DeadlineError

T = TypeVar("T")


async def within(timeout_s: float, work: Awaitable[T], *, stated_s: float | None = None) -> T:
    """The result of an awaitable, which is cancelled at the deadline.

    Args:
        timeout_s: Seconds that are left.
        work: Awaitable to run.
        stated_s: Seconds that the request had in all, for the message; ``timeout_s`` if None.

    Raises:
        DeadlineError: ``timeout_s`` seconds passed.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except TimeoutError:
        raise DeadlineError.after(timeout_s if stated_s is None else stated_s) from None
