"""The ingress's side of a deployment with a model: retries, and whether anybody is there."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import time
from typing import Any

from ray.exceptions import ObjectLostError, RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from serve_app.deployments.model_worker import ReplicaState
from serve_app.domain.background import BackgroundTasks
from serve_app.domain.errors import QueueFullError, ServiceError, UnavailableError

logger = logging.getLogger(__name__)

ATTEMPTS = 4  # a dead replica may be chosen again until the router has heard of it
PAUSE_S = 0.05  # before the second attempt, and more before each later one
_PING_S = 2.0
_PING_TIMEOUT_S = 3.0
_GIVE_UP_S = 30.0  # silence after which requests are refused; a replica is replaced in less than that

_keys = itertools.count(int.from_bytes(os.urandom(6), "big") << 8)  # distinct between ingress replicas


def next_key() -> int:
    """A name for a request, for fairness between requests."""
    return next(_keys)


class ReplicaLostError(UnavailableError):
    """The replica that a call went to is lost."""


class ReplicaCaller:
    """Calls one deployment; lives on the ingress replica's event loop."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        """Wraps a handle; ``start`` begins to watch the deployment."""
        self.handle = handle
        self.state: ReplicaState | None = None
        self._last_answer = 0.0
        self._answered = asyncio.Event()
        self._failed = False

    async def start(self, tasks: BackgroundTasks, *, wait_s: float) -> None:
        """Starts to watch whether a replica answers.

        Args:
            tasks: Those of the ingress replica.
            wait_s: Returns when the first replica has answered, or after this many seconds. A new ingress
                replica must not take requests before it reaches replicas that are there.
        """
        tasks.start("watch of a model's replicas", self._watch())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._answered.wait(), wait_s)

    @property
    def fault(self) -> str | None:
        """Why no replica is going to answer; None while one answers, is replaced, or loads after the start."""
        if self._failed:
            return "its deployment failed; the log and the Ray dashboard say why"
        if self.state is None and self._answered.is_set():
            return f"no replica has answered for {_GIVE_UP_S:.0f} s"
        return None

    def require_ready(self) -> None:
        """Raises ``UnavailableError`` while no replica answers."""
        if self.state is None:
            raise UnavailableError("the model is not ready: it is loading, or its replicas are restarting")

    async def require_responsive(self, *, timeout_s: float) -> None:
        """Asks a replica, whatever its device is doing, whether its work goes on.

        Raises:
            UnavailableError: None answers within ``timeout_s`` seconds, or its forward hangs.
        """
        try:
            async with asyncio.timeout(timeout_s):
                state: ReplicaState = await self.handle.state.remote()
        except Exception as error:
            raise UnavailableError("no replica of the model answers") from error
        if state.is_stuck:
            raise UnavailableError("a forward hangs; its replica is being replaced")

    async def call(self, method: str, value: Any) -> Any:
        """One handle call. All we send is idempotent, so it is sent again if the replica is lost.

        Raises:
            QueueFullError: Too many calls wait.
            UnavailableError: The deployment failed, or replicas were lost again and again.
            ServiceError: What the replica raised.
        """
        for attempt in range(1, ATTEMPTS):
            try:
                return await self.call_once(method, value)
            except ReplicaLostError:
                await asyncio.sleep(PAUSE_S * attempt)
        return await self.call_once(method, value)

    async def call_once(self, method: str, value: Any) -> Any:
        """One handle call that is not sent again.

        Raises:
            ReplicaLostError: The replica died before it could answer, or its answer was lost with it.
            ServiceError: As ``call``.
        """
        try:
            answer = await getattr(self.handle, method).remote(value)
        except (RayActorError, ObjectLostError, ReplicaUnavailableError) as error:  # an answer dies with its owner
            logger.warning("a replica died (%s) under a call of %s", type(error).__name__, method)
            raise ReplicaLostError("the model's replicas died under this request; try again later") from error
        except BackPressureError as error:
            raise QueueFullError("too many calls wait for the model; try again later") from error
        except DeploymentUnavailableError as error:
            raise UnavailableError("the model could not be deployed; see the Ray dashboard") from error
        except RayTaskError as error:
            if isinstance(error.cause, ServiceError):  # its own message, not Ray's with the remote trace
                raise error.cause from None
            raise
        self._last_answer = time.monotonic()
        return answer

    async def _watch(self) -> None:
        """Keeps ``state`` true: what a replica said of itself, or None while none answers.

        A single failed ping means little: the replica it went to may just have died beside healthy ones.
        """
        while True:
            if self.state is None or time.monotonic() - self._last_answer > _PING_S:
                try:
                    async with asyncio.timeout(_PING_TIMEOUT_S):
                        self.state = await self.handle.state.remote()
                    self._last_answer = time.monotonic()
                    self._answered.set()
                    self._failed = False
                except Exception as error:
                    self._failed = isinstance(error, DeploymentUnavailableError)
                    silent_s = time.monotonic() - self._last_answer
                    if self.state is not None and silent_s > _GIVE_UP_S:
                        logger.warning("no replica has answered for %.0f s (%r)", silent_s, error)
                        self.state = None
                    await asyncio.sleep(0.2)
                    continue
            await asyncio.sleep(_PING_S)
