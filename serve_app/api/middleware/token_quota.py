"""Reservation of tokens from the limit of an API key: admitted, charged and settled once for each request.

A request may be cancelled at any moment, by a disconnect or a deadline, while a started call of the limiter still takes
its tokens. So every such call completes in a task of its own, and a request returns exactly what was taken for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from serve_app.domain.errors import PayloadTooLargeError, RateLimitError
from serve_app.security.api_keys import ApiKey
from serve_app.security.rate_limits import Admission

T = TypeVar("T")

_running: set[asyncio.Task[Any]] = set()  # an event loop alone does not keep its tasks alive


class Limiter(Protocol):
    """Usage of keys with limits, for all HTTP replicas together."""

    async def admit(self, key: ApiKey, estimate: int) -> Admission:
        """Counts a request and reserves tokens for it; see ``security.rate_limits``."""
        ...

    async def charge(self, key: ApiKey, extra: int, reserved: int) -> float:
        """Raises the reservation of a request and returns 0; or returns the seconds to wait and takes nothing."""
        ...

    def settle(self, key: ApiKey, used: int, reserved: int) -> None:
        """Returns the reserved tokens that a request did not use; does not wait."""
        ...


async def admit(limiter: Limiter, key: ApiKey, estimate: int) -> int:
    """Tokens reserved for a request; a request that is cancelled meanwhile returns them.

    Raises:
        RateLimitError: The key has used up its requests or tokens.
    """

    def return_unused(task: asyncio.Task[Admission]) -> None:
        if not task.cancelled() and task.exception() is None and task.result().reserved:
            limiter.settle(key, 0, task.result().reserved)

    task = _started(limiter.admit(key, estimate))
    try:
        admission = await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(return_unused)
        raise
    if admission.wait_s:
        raise _used_up(key, admission.wait_s)
    return admission.reserved


class TokenBudget:
    """The tokens that one request has reserved from its key's limit."""

    def __init__(self, key: ApiKey, per_minute: int, reserved: int, limiter: Limiter) -> None:
        """The budget of a request that ``admit`` has accepted with these reserved tokens."""
        self._key = key
        self._per_minute = per_minute
        self._reserved = reserved
        self._limiter = limiter
        self._lock = asyncio.Lock()  # chunks of a request are tokenised concurrently
        self._charges: set[asyncio.Task[float]] = set()
        self._keeps_all = False
        self._is_settled = False

    async def require(self, tokens: int) -> None:
        """Raises the reservation to the tokens of the whole request, if it is lower.

        Raises:
            PayloadTooLargeError: More than the key's limit. They have been tokenised, so the request is charged a
                minute's tokens, or what other requests of the key have left of them.
            RateLimitError: Other requests of the key have used up its tokens.
        """
        if tokens > self._per_minute:
            self._keeps_all = True
            await self._charge(self._per_minute)
            raise PayloadTooLargeError(
                f"the request has at least {tokens} tokens, but the API key {self._key.name!r} may use "
                f"{self._per_minute} a minute; send fewer or shorter texts at once"
            )
        if wait_s := await self._charge(tokens):
            raise _used_up(self._key, wait_s)

    def settle(self, used: int) -> None:
        """Ends the request: returns unused tokens as soon as no call of the limiter is running."""
        self._is_settled = True
        if self._charges:
            asyncio.gather(*self._charges, return_exceptions=True).add_done_callback(
                lambda _: self._return_unused(used)
            )
        else:
            self._return_unused(used)

    async def _charge(self, tokens: int) -> float:
        if tokens <= self._reserved:
            return 0.0
        task = _started(self._raise_to(tokens))
        self._charges.add(task)
        task.add_done_callback(self._charges.discard)
        return await asyncio.shield(task)

    async def _raise_to(self, tokens: int) -> float:
        async with self._lock:
            extra = tokens - self._reserved
            if extra <= 0 or self._is_settled:
                return 0.0
            wait_s = await self._limiter.charge(self._key, extra, self._reserved)
            if not wait_s:
                self._reserved = tokens
            return wait_s

    def _return_unused(self, used: int) -> None:
        used = max(used, self._reserved) if self._keeps_all else used
        if used != self._reserved:
            self._limiter.settle(self._key, used, self._reserved)


def _started(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    task = asyncio.get_running_loop().create_task(work)
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task


def _used_up(key: ApiKey, wait_s: float) -> RateLimitError:
    return RateLimitError(
        f"the API key {key.name!r} is over its limit of requests or tokens a minute; retry in {wait_s:.1f} s",
        retry_after_s=wait_s,
    )
