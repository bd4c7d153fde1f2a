"""What every replica with a model has: a scheduler that feeds a worker thread, and the question if it still works."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from serve_app.deployments.metrics import DeviceMetrics
from serve_app.domain.errors import InternalError, ServiceError
from serve_app.models.scheduler import Scheduler
from serve_app.settings import ModelSettings

_STUCK_S = 120.0  # a forward that runs longer than this will not come back
_SUSPICIOUS_FORWARDS = 5  # so many in a row without one result: is the device lost, as after a CUDA error?

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")


@dataclass(frozen=True)
class ReplicaState:
    """What a replica says of itself."""

    device: str
    dtype: str
    threads: int


class Device(Generic[T, R]):
    """One model, computing in a thread of its own so that the replica's event loop stays free."""

    def __init__(
        self,
        compute: Callable[[Sequence[T]], list[R | ServiceError]],
        *,
        probe: T,
        settings: ModelSettings,
        state: ReplicaState,
    ) -> None:
        """Puts the parts together; ``start`` begins the work.

        Args:
            compute: Computes one micro-batch, one result or error for each item; never raises.
            probe: An item that a healthy model can compute.
            settings: Name and bounds.
            state: Where it computes.
        """
        self.state = state
        self._compute = compute
        self._probe = probe
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="forward")
        max_batch_tokens, max_padding_tokens = settings.batching.for_device(state.device)
        self.scheduler: Scheduler[T, R] = Scheduler(
            self._forward,
            max_batch_tokens=max_batch_tokens,
            max_padding_tokens=max_padding_tokens,
            max_backlog_tokens=settings.batching.max_backlog_tokens,
            report=lambda report: self.metrics.observe(report),
        )
        self.metrics = DeviceMetrics(
            settings.name,
            max_batch_tokens,
            lambda: (self.scheduler.waiting_texts, self.scheduler.backlog_tokens),
        )
        self._without_result = 0

    async def start(self) -> None:
        """One forward, so that the first client does not pay for it and a broken model does not start.

        Raises:
            ServiceError: The model does not compute.
        """
        await self._prove()
        self.scheduler.start()

    async def run(self, function: Callable[[], S]) -> S:
        """Runs something on the device's thread, between two micro-batches."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    async def check_health(self) -> None:
        """Raises if a forward hangs or the model does not compute any more; Serve then replaces the replica."""
        began = self.scheduler.forward_began
        if began is not None and time.monotonic() - began > _STUCK_S:
            raise RuntimeError(f"a forward has been running for {time.monotonic() - began:.0f} s")
        if self._without_result >= _SUSPICIOUS_FORWARDS:  # the texts may be to blame: ask for one that is known
            try:
                await self._prove()
            except ServiceError as error:
                raise RuntimeError(f"the model does not compute any more: {error.message}") from error
            self._without_result = 0

    async def _prove(self) -> None:
        (result,) = await self.run(lambda: self._compute([self._probe]))
        if isinstance(result, ServiceError):
            raise result

    async def _forward(self, items: Sequence[T]) -> list[R | ServiceError]:
        results = await self.run(lambda: self._compute(items))
        failed = all(isinstance(result, InternalError) for result in results)
        self._without_result = self._without_result + 1 if failed else 0
        return results
