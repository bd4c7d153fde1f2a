"""The deadline of a request, wherever it waits: for its turn to be tokenised as well as for a replica."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from serve_app.domain.errors import DeadlineError

T = TypeVar("T")


async def within(timeout_s: float, work: Awaitable[T]) -> T:
    """The result of some work; the work is cancelled when it takes longer.

    Raises:
        DeadlineError: ``timeout_s`` seconds passed.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except TimeoutError:
        raise DeadlineError(f"not done within {round(timeout_s, 2):g} s; the remaining work was dropped") from None
