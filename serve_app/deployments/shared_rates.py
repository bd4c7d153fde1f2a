"""Limits of API keys that hold for all ingress replicas together: one small actor counts.

A request of a key with limits waits for one call of an actor, one to three milliseconds, and for a second one where it
has more tokens than its size promised; others never ask it. If it
does not answer, each replica counts for itself until it does, so for that time n replicas let in up to n times
the limit: better than to refuse everybody. It belongs to the replica that made it and ends with that; the next one
starts with full buckets, which forgives a minute's worth at most.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError

from serve_app.security.api_keys import ApiKey
from serve_app.security.rate_limits import Admission, Rates

logger = logging.getLogger(__name__)

NAME, NAMESPACE = "ApiKeyRates", "retrieval"
_ANSWER_S = 1.0
_AGAIN_S = 5.0


class RateCounter:
    """The actor: the buckets, and one clock for all."""

    def __init__(self) -> None:
        self._rates = Rates()

    def admit(self, key: ApiKey, estimate: int) -> Admission:
        """See ``Rates.admit``."""
        return self._rates.admit(key, time.monotonic(), estimate=estimate)

    def charge(self, key: ApiKey, extra: int, reserved: int) -> float:
        """See ``Rates.charge``."""
        return self._rates.charge(key, extra, time.monotonic(), reserved=reserved)

    def settle(self, key: ApiKey, used: int, reserved: int) -> None:
        """See ``Rates.settle``."""
        self._rates.settle(key, used, time.monotonic(), reserved=reserved)


def shared_counter() -> Any:
    """The handle of the cluster's counter, which may still be starting; creates it if there is none."""
    actor: Any = ray.remote(RateCounter).options(name=NAME, namespace=NAMESPACE, get_if_exists=True, num_cpus=0)
    return actor.remote()


class SharedRates:
    """Implements ``api.token_budget.Limiter`` on the actor."""

    def __init__(self, *, connect: Callable[[], Any] = shared_counter) -> None:
        """Prepares; ``start`` or the first question connects."""
        self._connect = connect
        self._counter: Any = None
        self._not_before = 0.0
        self._alone = RateCounter()

    def start(self) -> None:
        """Has the actor started, so that the first request need not wait for it."""
        if self._counter is not None or time.monotonic() < self._not_before:
            return
        try:
            self._counter = self._connect()
        except (RayError, ValueError, RuntimeError) as error:
            self._lost(error)

    async def admit(self, key: ApiKey, estimate: int) -> Admission:
        """See ``Limiter.admit``."""
        self.start()
        admission: Admission = await self._ask("admit", key, estimate)
        return admission

    async def charge(self, key: ApiKey, extra: int, reserved: int) -> float:
        """See ``Limiter.charge``."""
        wait_s: float = await self._ask("charge", key, extra, reserved)
        return wait_s

    def settle(self, key: ApiKey, used: int, reserved: int) -> None:
        """See ``Limiter.settle``; where the counter was lost meanwhile, what is given back overfills no bucket."""
        if self._counter is not None:
            self._counter.settle.remote(key, used, reserved)
        else:
            self._alone.settle(key, used, reserved)

    async def _ask(self, method: str, *args: Any) -> Any:
        """The answer of the shared counter, or of this replica's own while the shared one does not answer."""
        if self._counter is not None:
            try:
                async with asyncio.timeout(_ANSWER_S):
                    return await getattr(self._counter, method).remote(*args)
            except (RayError, TimeoutError) as error:
                self._lost(error)
        return getattr(self._alone, method)(*args)

    def _lost(self, error: Exception) -> None:
        logger.warning("each replica counts for itself now: the counter of API keys fails (%s)", type(error).__name__)
        self._counter = None
        self._not_before = time.monotonic() + _AGAIN_S
