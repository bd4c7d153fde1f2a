"""The encoder: one model on one share of a device."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from ray import serve

from serve_app.deployments.console import keep_log_fresh, telling_why
from serve_app.deployments.metrics import EncoderMetrics
from serve_app.domain.embeddings import DenseBatch, Float32, Int32, ItemFailure, TokenBatch
from serve_app.domain.errors import InternalError, ServiceError
from serve_app.models.openmp import threads_for
from serve_app.models.scheduler import Scheduler
from serve_app.models.source import find_model
from serve_app.settings import ModelSettings

_STUCK_S = 120.0  # a forward that runs longer than this will not come back
_BROKEN_FORWARDS = 5  # so many in a row without one result: the device is lost, as after a CUDA error

_Outcome: TypeAlias = "asyncio.Future[list[Float32 | ServiceError]]"


@dataclass(frozen=True)
class EncoderState:
    """What a replica says of itself."""

    device: str
    dtype: str
    threads: int


class Encoder:
    """Turns token ids into dense vectors, in micro-batches, off the event loop.

    ``@serve.batch`` collects what arrives together; the scheduler decides what runs together. Both are
    needed: the first closes its batches before the device is free, so alone it makes them too small.
    """

    async def __init__(self, settings: ModelSettings, models_dir: Path) -> None:  # type: ignore[misc]
        """Loads the model and proves that it computes.

        Raises:
            ModelLoadError: The model can not be found, read or placed; the replica does not start.
        """
        from serve_app.models.loader import load_model  # torch: seconds to import, and only here

        auto = threads_for(settings.num_cpus, settings.most_replicas)
        threads = auto if settings.threads == "auto" else settings.threads
        with telling_why(f"the encoder of {settings.name!r}"):
            source = find_model(settings.name, models_dir, family=settings.family)
            self._model = load_model(source, device=settings.device, dtype=settings.dtype, threads=threads)
        transformer = self._model.transformer
        self._state = EncoderState(str(transformer.device), str(transformer.dtype).removeprefix("torch."), threads)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="forward")
        max_batch_tokens, max_padding_tokens = settings.batching.for_device(self._state.device)
        self._scheduler: Scheduler[Int32, Float32] = Scheduler(
            self._forward,
            max_batch_tokens=max_batch_tokens,
            max_padding_tokens=max_padding_tokens,
            max_backlog_tokens=settings.batching.max_backlog_tokens,
            report=lambda report: self._metrics.observe(report),
        )
        self._metrics = EncoderMetrics(settings.name, max_batch_tokens, self._backlog)
        self._dimension = source.dimension
        self._broken_forwards = 0
        await self._warm_up()
        self._scheduler.start()
        self._log_keeper = asyncio.get_running_loop().create_task(keep_log_fresh())

    async def encode(self, batch: TokenBatch) -> DenseBatch:
        """Dense vectors of the texts; those that failed or were refused are named in the answer."""
        outcomes = await self._admit(batch)
        try:
            return self._collect([result for outcome in outcomes for result in await outcome])
        finally:  # if the caller went away: what still waits must not run
            for outcome in outcomes:
                outcome.cancel()

    async def state(self) -> EncoderState:
        """Answers at once, whatever the device is doing; proves that a replica is there."""
        return self._state

    def check_health(self) -> None:
        """Raises if a forward hangs or none succeeds any more; Serve then replaces the replica."""
        began = self._scheduler.forward_began
        if began is not None and time.monotonic() - began > _STUCK_S:
            raise RuntimeError(f"a forward has been running for {time.monotonic() - began:.0f} s")
        if self._broken_forwards >= _BROKEN_FORWARDS:
            raise RuntimeError(f"the last {self._broken_forwards} forwards failed altogether; the log says why")

    @serve.batch(max_batch_size=256, batch_wait_timeout_s=0, max_concurrent_batches=8)
    async def _admit(self, batches: list[TokenBatch]) -> list[list[_Outcome]]:
        return [self._submit(batch) for batch in batches]

    def _submit(self, batch: TokenBatch) -> list[_Outcome]:
        """One future for each share of the batch."""
        rows, lengths = batch.rows(), batch.lengths.tolist()
        outcomes: list[_Outcome] = []
        start = 0
        for share in batch.shares:
            part = slice(start, start + share.count)
            start += share.count
            try:
                ticket = self._scheduler.submit(rows[part], lengths[part], key=share.key, timeout_s=share.timeout_s)
                outcomes.append(ticket.done)
            except ServiceError as error:  # no room: this share is refused, its neighbours are not
                outcomes.append(asyncio.get_running_loop().create_future())
                outcomes[-1].set_result([error] * share.count)
        return outcomes

    async def _forward(self, texts: Sequence[Int32]) -> list[Float32 | ServiceError]:
        results = await asyncio.get_running_loop().run_in_executor(self._executor, self._model.embed, texts)
        broken = all(isinstance(result, InternalError) for result in results)
        self._broken_forwards = self._broken_forwards + 1 if broken else 0
        return results

    async def _warm_up(self) -> None:
        """One forward, so that the first client does not pay for it and a broken model does not start."""
        (result,) = await self._forward([np.full(8, 5, np.int32)])
        if isinstance(result, ServiceError):
            raise result

    def _collect(self, results: Sequence[Float32 | ServiceError]) -> DenseBatch:
        vectors = np.zeros((len(results), self._dimension), np.float32)
        failures = []
        for i, result in enumerate(results):
            if isinstance(result, ServiceError):
                failures.append(ItemFailure(i, result.code, result.message, result.retry_after_s))
                self._metrics.count_failure(result.code)
            else:
                vectors[i] = result
        return DenseBatch(vectors, tuple(failures))

    def _backlog(self) -> tuple[int, int]:
        return self._scheduler.waiting_texts, self._scheduler.backlog_tokens
