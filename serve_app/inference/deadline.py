"""The deadline of a request, while it is tokenised and while it waits for a replica."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from serve_app.api.inference_results import CallOptions
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


class RequestDeadline:
    """The deadline of one request, counted from the creation of this object."""

    def __init__(self, options: CallOptions) -> None:
        """Starts the clock."""
        self._began = time.monotonic()
        self._timeout_s, self._stated_s = options.timeout_s, options.stated_s

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; 0 after it."""
        return max(0.0, self._timeout_s - self.elapsed_s)

    async def within(self, work: Awaitable[T]) -> T:
        """The result of an awaitable, which is cancelled at the deadline; see ``within``."""
        return await within(self.left_s, work, stated_s=self._stated_s)
