"""Calls to the replicas of one model's deployment: retries after a lost replica, and whether any replica answers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import time
from dataclasses import dataclass
from typing import Any, Protocol

from serve_app.domain.background import BackgroundTasks
from serve_app.domain.errors import UnavailableError

logger = logging.getLogger(__name__)

ATTEMPTS = 4  # the router may choose a dead replica again until it learns of the death
PAUSE_S = 0.05  # before the second attempt; longer before each later one
_PING_S = 2.0
_PING_TIMEOUT_S = 3.0
_SILENCE_S = 30.0  # without an answer for so long, requests are refused; Serve replaces a replica in less

_keys = itertools.count(int.from_bytes(os.urandom(6), "big") << 8)  # distinct between ingress replicas


def next_key() -> int:
    """A new identifier of a request, by which replicas schedule requests fairly."""
    return next(_keys)


class ReplicaLostError(UnavailableError):
    """The replica died before it could answer, or its answer was lost with it."""


class DeploymentFailedError(UnavailableError):
    """The deployment has failed; no replica will answer."""


@dataclass(frozen=True)
class ReplicaState:
    """The state that a replica reports.

    Attributes:
        device: Device that it computes on.
        dtype: Number format that it computes in.
        threads: Threads of torch.
        is_stuck: Whether its forward has been running for so long that it will not return.
    """

    device: str
    dtype: str
    threads: int
    is_stuck: bool = False


class Deployment(Protocol):
    """A deployment whose replicas can be called; ``deployments.serve_handle`` implements it on Ray Serve."""

    async def call(self, method: str, *args: Any) -> Any:
        """The answer of one replica.

        Raises:
            ReplicaLostError: The replica or its answer is lost.
            DeploymentFailedError: The deployment has failed.
            QueueFullError: Too many calls wait.
            ServiceError: The replica raised it.
        """
        ...


class ReplicaCaller:
    """Calls one deployment; lives on the ingress replica's event loop.

    Attributes:
        state: What a replica reported last; None while none answers.
    """

    def __init__(self, deployment: Deployment) -> None:
        """Prepares; ``start`` begins to watch the deployment."""
        self._deployment = deployment
        self.state: ReplicaState | None = None
        self._last_answer = 0.0
        self._answered = asyncio.Event()
        self._failed = False

    async def start(self, tasks: BackgroundTasks, *, wait_s: float) -> None:
        """Starts to watch whether a replica answers.

        Args:
            tasks: Background tasks of the ingress replica.
            wait_s: Returns when the first replica has answered, or after this many seconds. A new ingress
                replica must not take requests before it reaches the replicas that already run.
        """
        tasks.start("watch of a model's replicas", self._watch())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._answered.wait(), wait_s)

    @property
    def fault(self) -> str | None:
        """The reason why no replica will answer; None while one answers, is replaced, or loads after the start."""
        if self._failed:
            return "its deployment failed; the log and the Ray dashboard say why"
        if self.state is None and self._answered.is_set():
            return f"no replica has answered for {_SILENCE_S:.0f} s"
        return None

    def require_ready(self) -> None:
        """Raises ``UnavailableError`` while no replica answers."""
        if self.state is None:
            raise UnavailableError("the model is not ready: it is loading, or its replicas are restarting")

    async def require_responsive(self, *, timeout_s: float) -> None:
        """Asks a replica whether its work proceeds; it answers even while its device is busy.

        Raises:
            UnavailableError: No replica answers within ``timeout_s`` seconds, or its forward hangs.
        """
        try:
            async with asyncio.timeout(timeout_s):
                state: ReplicaState = await self._deployment.call("state")
        except Exception as error:
            raise UnavailableError("no replica of the model answers") from error
        if state.is_stuck:
            raise UnavailableError("a forward hangs; its replica is being replaced")

    async def call(self, method: str, value: Any) -> Any:
        """One call, repeated if its replica is lost: all calls are idempotent.

        Raises:
            QueueFullError: Too many calls wait.
            UnavailableError: The deployment has failed, or every attempt lost its replica.
            ServiceError: The replica raised it.
        """
        for attempt in range(1, ATTEMPTS):
            try:
                return await self.call_once(method, value)
            except ReplicaLostError:
                await asyncio.sleep(PAUSE_S * attempt)
        return await self.call_once(method, value)

    async def call_once(self, method: str, value: Any) -> Any:
        """One call that is not repeated.

        Raises:
            ReplicaLostError: The replica or its answer is lost.
            ServiceError: As ``call``.
        """
        try:
            answer = await self._deployment.call(method, value)
        except ReplicaLostError as error:
            logger.warning("a replica died (%s) during a call of %s", type(error.__cause__).__name__, method)
            raise
        self._last_answer = time.monotonic()
        return answer

    async def _watch(self) -> None:
        """Keeps ``state`` current.

        One failed ping means little: it may have gone to a replica that just died beside healthy ones.
        """
        while True:
            if self.state is None or time.monotonic() - self._last_answer > _PING_S:
                try:
                    async with asyncio.timeout(_PING_TIMEOUT_S):
                        self.state = await self._deployment.call("state")
                    self._last_answer = time.monotonic()
                    self._answered.set()
                    self._failed = False
                except Exception as error:
                    self._failed = isinstance(error, DeploymentFailedError)
                    silent_s = time.monotonic() - self._last_answer
                    if self.state is not None and silent_s > _SILENCE_S:
                        logger.warning("no replica has answered for %.0f s (%r)", silent_s, error.__cause__ or error)
                        self.state = None
                    await asyncio.sleep(0.2)
                    continue
            await asyncio.sleep(_PING_S)
