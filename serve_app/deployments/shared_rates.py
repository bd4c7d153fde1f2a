"""Rate limits of API keys across all ingress replicas, counted by one small actor.

A request of a key with limits waits for one call of the actor, one to three milliseconds, and for a second call if it
has more tokens than its size suggested; other requests never call it. While it does not answer, each replica counts by
itself, so n replicas allow up to n times the limit: better than refusing all requests. The actor ends with the replica
that created it; the next one starts with full buckets, which forgives at most a minute's worth.
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
_RECONNECT_S = 5.0


class RateCounter:
    """The actor: all buckets, on one clock."""

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
    """The handle of the cluster's counter, which may still be starting; creates the actor if it does not exist."""
    actor: Any = ray.remote(RateCounter).options(name=NAME, namespace=NAMESPACE, get_if_exists=True, num_cpus=0)
    return actor.remote()


class SharedRates:
    """Implements ``api.middleware.token_quota.Limiter`` on the actor."""

    def __init__(self, *, connect: Callable[[], Any] = shared_counter) -> None:
        """Prepares; ``start`` or the first call connects."""
        self._connect = connect
        self._counter: Any = None
        self._not_before = 0.0
        self._alone = RateCounter()

    def start(self) -> None:
        """Starts the actor, so that the first request does not wait for it."""
        if self._counter is not None or time.monotonic() < self._not_before:
            return
        try:
            self._counter = self._connect()
        except (RayError, ValueError, RuntimeError) as error:
            self._lost(error)

    async def admit(self, key: ApiKey, estimate: int) -> Admission:
        """See ``Limiter.admit``."""
        self.start()
        admission: Admission = await self._call("admit", key, estimate)
        return admission

    async def charge(self, key: ApiKey, extra: int, reserved: int) -> float:
        """See ``Limiter.charge``."""
        wait_s: float = await self._call("charge", key, extra, reserved)
        return wait_s

    def settle(self, key: ApiKey, used: int, reserved: int) -> None:
        """See ``Limiter.settle``; a counter that replaced a lost one does not overfill its buckets."""
        if self._counter is not None:
            self._counter.settle.remote(key, used, reserved)
        else:
            self._alone.settle(key, used, reserved)

    async def _call(self, method: str, *args: Any) -> Any:
        """The answer of the shared counter, or of this replica's own while that does not answer."""
        if self._counter is not None:
            try:
                async with asyncio.timeout(_ANSWER_S):
                    return await getattr(self._counter, method).remote(*args)
            except (RayError, TimeoutError) as error:
                self._lost(error)
        return getattr(self._alone, method)(*args)

    def _lost(self, error: Exception) -> None:
        logger.warning(
            "the shared rate counter does not answer (%s); each replica counts for itself", type(error).__name__
        )
        self._counter = None
        self._not_before = time.monotonic() + _RECONNECT_S
