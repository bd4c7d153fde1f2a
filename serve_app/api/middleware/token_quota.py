"""The tokens that one request takes from the limit of its API key: admitted, charged, settled.

A request may be cancelled at any moment: the client goes away, or a deadline passes. A call of the limiter that has
begun then takes its tokens all the same. So every such call runs to its end in a task of its own, and a request gives
back exactly what the limiter took for it.
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
    """Counts what keys with limits use, for all HTTP replicas together."""

    async def admit(self, key: ApiKey, estimate: int) -> Admission:
        """Counts a request and reserves tokens for it; see ``domain.rates``."""
        ...

    async def charge(self, key: ApiKey, extra: int, reserved: int) -> float:
        """Raises the reservation of a request and gives 0, or gives the seconds to wait; then nothing is taken."""
        ...

    def settle(self, key: ApiKey, used: int, reserved: int) -> None:
        """Gives back what a request reserved and did not use; does not wait."""
        ...


async def admit(limiter: Limiter, key: ApiKey, estimate: int) -> int:
    """Tokens reserved for a request; a request that is cancelled meanwhile gives them back.

    Raises:
        RateLimitError: The key has used up its requests or tokens.
    """

    def give_back(task: asyncio.Task[Admission]) -> None:
        if not task.cancelled() and task.exception() is None and task.result().reserved:
            limiter.settle(key, 0, task.result().reserved)

    task = _started(limiter.admit(key, estimate))
    try:
        admission = await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(give_back)
        raise
    if admission.wait_s:
        raise _used_up(key, admission.wait_s)
    return admission.reserved


class TokenBudget:
    """The tokens that one request has reserved of its key's limit."""

    def __init__(self, key: ApiKey, per_minute: int, reserved: int, limiter: Limiter) -> None:
        """The budget of a request that ``admit`` has let in with so many reserved tokens."""
        self._key = key
        self._per_minute = per_minute
        self._reserved = reserved
        self._limiter = limiter
        self._lock = asyncio.Lock()  # parts of a request are tokenised side by side
        self._charges: set[asyncio.Task[float]] = set()
        self._keeps_all = False
        self._is_settled = False

    async def require(self, tokens: int) -> None:
        """Raises the reservation to the tokens of the whole request, where it is lower.

        Raises:
            PayloadTooLargeError: More than the key may ever use at once. They were tokenised all the same, so the
                request costs a minute's worth, or what other requests of the key have left of it.
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
        """Ends the request: gives back what it reserved and did not use, as soon as no call is under way."""
        self._is_settled = True
        if self._charges:
            asyncio.gather(*self._charges, return_exceptions=True).add_done_callback(lambda _: self._give_back(used))
        else:
            self._give_back(used)

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

    def _give_back(self, used: int) -> None:
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
        f"the API key {key.name!r} has used up its requests or tokens for now; come back in {wait_s:.1f} s",
        retry_after_s=wait_s,
    )
