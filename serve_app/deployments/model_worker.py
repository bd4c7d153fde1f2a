"""The worker of a replica with a model: a scheduler that feeds one thread, and health checks."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Generic, TypeAlias, TypeVar

from serve_app.deployments.metrics import DeviceMetrics
from serve_app.domain.background import BackgroundTasks
from serve_app.domain.errors import InternalError, ServiceError
from serve_app.inference.replica_caller import ReplicaState
from serve_app.models.batching.isolation import observing_memory
from serve_app.models.batching.scheduler import Scheduler
from serve_app.settings.model_settings import ModelSettings

_GRACE_S = 120.0  # no forward counts as hung earlier, however few tokens it has
_LONG_S = 10.0  # a probe would wait for such a forward, and Serve waits half a minute for a health check
_SUSPICIOUS_FORWARDS = 5  # so many in a row without a result: the device may be lost, as after a CUDA error

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")

Compute: TypeAlias = Callable[[Sequence[T]], list[R | ServiceError]]
"""Computes one micro-batch, one result or error for each item; never raises."""


class ModelWorker(Generic[T, R]):
    """A scheduler and one thread for a share of a device; the replica's event loop stays free."""

    def __init__(self, compute: Compute[T, R], *, probe: T, settings: ModelSettings, state: ReplicaState) -> None:
        """Prepares; ``start`` begins the work.

        Args:
            compute: Function of the replica's own model.
            probe: An item that a healthy model can compute.
            settings: Name and bounds.
            state: Device and number format.
        """
        self._state = state
        self._min_speed = settings.batching.min_speed_for_device(state.device)
        self._prober = partial(compute, [probe])
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="forward")
        max_batch_tokens, max_padding_tokens = settings.batching.for_device(state.device)
        self._scheduler: Scheduler[tuple[Compute[T, R], T], R] = Scheduler(
            self._forward,
            max_batch_tokens=max_batch_tokens,
            max_padding_tokens=max_padding_tokens,
            max_backlog_tokens=settings.batching.max_backlog_tokens,
            max_batch_seconds=settings.batching.max_batch_seconds,
            report=lambda report: self.metrics.observe(report),
        )
        self.metrics = DeviceMetrics(
            settings.name,
            max_batch_tokens,
            lambda: (self._scheduler.waiting_texts, self._scheduler.backlog_tokens),
            lambda: self._scheduler.budget_tokens,
        )
        self.tasks = BackgroundTasks()
        self._without_result = 0

    async def start(self) -> None:
        """Runs one forward, so that the first client need not wait for it and a broken model does not start.

        Raises:
            ServiceError: The model does not compute.
        """
        await self._validate()
        self._scheduler.start()
        self.metrics.start(self.tasks)

    def submit(
        self,
        compute: Compute[T, R],
        items: Sequence[T],
        lengths: Sequence[int],
        *,
        key: int,
        timeout_s: float,
        max_texts: int = sys.maxsize,
    ) -> asyncio.Future[list[R | ServiceError]]:
        """Puts items into the backlog, see ``Scheduler.submit``; only those of one ``compute`` share a forward.

        Returns:
            One result or error for each item, in order; cancelling it withdraws the items that still wait.

        Raises:
            QueueFullError: The backlog is at its bound.
        """
        work = [(compute, item) for item in items]
        return self._scheduler.submit(
            work, lengths, key=key, timeout_s=timeout_s, max_texts=max_texts, group=compute
        ).done

    async def run(self, function: Callable[[], S]) -> S:
        """Runs a function on the device's thread, between two micro-batches."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    async def check_health(self) -> None:
        """Raises if a forward hangs, the model no longer computes, or a background task has failed.

        Ray Serve then replaces the replica.
        """
        self.tasks.check()
        self._scheduler.check()
        if self._is_stuck:
            raise RuntimeError(f"a forward has been running for {self._forward_s:.0f} s")
        if self._without_result >= _SUSPICIOUS_FORWARDS and self._forward_s < _LONG_S:
            # the texts may be the cause: probe with a known one
            try:
                await self._validate()
            except ServiceError as error:
                raise RuntimeError(f"the model no longer computes: {error.message}") from error
            self._without_result = 0

    @property
    def state(self) -> ReplicaState:
        """The current state."""
        return replace(self._state, is_stuck=self._is_stuck)

    @property
    def _is_stuck(self) -> bool:
        forward = self._scheduler.under_way
        return forward is not None and self._forward_s > _GRACE_S + forward.padded_tokens / self._min_speed

    @property
    def _forward_s(self) -> float:
        """Seconds that the forward has been running; 0 if none is."""
        forward = self._scheduler.under_way
        return 0.0 if forward is None else time.monotonic() - forward.began

    async def _validate(self) -> None:
        (result,) = await self.run(self._prober)
        if isinstance(result, ServiceError):
            raise result

    async def _forward(self, works: Sequence[tuple[Compute[T, R], T]]) -> list[R | ServiceError]:
        compute = works[0][0]  # all are of one group
        splits: list[None] = []

        def run() -> tuple[list[R | ServiceError], float]:
            began = perf_counter()  # on the device's thread: time spent waiting for it is not computation
            with observing_memory(lambda: splits.append(None)):
                results = compute([item for _, item in works])
            return results, perf_counter() - began

        results, seconds = await self.run(run)
        self._scheduler.note_computation(seconds)
        if splits:
            self._scheduler.note_out_of_memory()
        failed = all(isinstance(result, InternalError) for result in results)
        self._without_result = self._without_result + 1 if failed else 0
        return results
