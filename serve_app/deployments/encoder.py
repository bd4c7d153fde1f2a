"""The encoder: one embedding model on one share of a device."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from ray import serve

from serve_app.deployments.first_forward import first_forward
from serve_app.deployments.model_worker import Compute, ModelWorker
from serve_app.deployments.operator_log import log_startup_failure, start_log_flush
from serve_app.domain.embeddings import Encoded, EncodedBatch, TokenBatch
from serve_app.domain.errors import ServiceError
from serve_app.domain.profiles import Capability
from serve_app.inference.replica_caller import ReplicaState
from serve_app.models.model_source import find_model
from serve_app.models.openmp import threads_for
from serve_app.settings.model_settings import ModelSettings

_Outcome: TypeAlias = "asyncio.Future[list[Encoded | ServiceError]]"


class Encoder:
    """Encodes token ids into vectors, in micro-batches, off the event loop.

    ``@serve.batch`` collects calls that arrive together; the scheduler forms the micro-batches. ``@serve.batch`` alone
    would make them too small, because it closes its batches before the device is free.
    """

    async def __init__(self, settings: ModelSettings, models_dir: Path) -> None:  # type: ignore[misc]
        """Loads the model and runs a first forward.

        Raises:
            ModelLoadError: The model cannot be found, read or placed; the replica does not start.
        """
        from serve_app.models.embedder import TextToEncode
        from serve_app.models.fine_tune_cache import FineTuneCache  # torch: seconds to import, and only here
        from serve_app.models.loader import load_model

        auto = threads_for(settings.num_cpus, settings.max_replicas)
        threads = auto if settings.threads == "auto" else settings.threads
        load = partial(
            load_model,
            device=settings.device,
            dtype=settings.dtype,
            threads=threads,
            dense_only=settings.dense_only,
        )
        what = f"the encoder of {settings.name!r}"
        with log_startup_failure(what):
            source = find_model(settings.name, models_dir, family=settings.family)
            model = load(source)
        self._text = TextToEncode
        self._dimension = source.dimension
        self._worker: ModelWorker[TextToEncode, Encoded] = ModelWorker(
            model.encode,
            probe=TextToEncode(np.full(8, 5, np.int32)),
            settings=settings,
            state=ReplicaState(str(model.transformer.device), model.transformer.dtype_name, threads),
        )
        self._fine_tunes: FineTuneCache[Compute[TextToEncode, Encoded]] = FineTuneCache(
            settings.name,
            model,
            models_dir=models_dir,
            max_bytes=settings.max_fine_tunes_bytes,
            load=load,
            wrap=lambda loaded: loaded.encode,
            on_device=self._worker.run,
        )
        with log_startup_failure(what, is_last=True):
            await first_forward(self._worker, source, model.transformer.dtype_name)
        start_log_flush(self._worker.tasks)

    async def encode(self, batch: TokenBatch) -> EncodedBatch:
        """The representations that each share requests; texts that failed or were refused are listed in the answer."""
        try:
            async with self._fine_tunes.use(batch.model_version) as compute:
                results = await self._compute(batch, compute)
        except ServiceError as error:  # the fine-tune was deleted, or does not fit in memory
            results = [error] * len(batch.lengths)
        wanted = frozenset[Capability]().union(*(share.want for share in batch.shares))
        answer = EncodedBatch.of_texts(results, wanted, self._dimension)
        for code, count in Counter(failure.code for failure in answer.failures).items():
            self._worker.metrics.count_failure(code, count)
        return answer

    async def state(self) -> ReplicaState:
        """The replica's state, returned at once even while the device is busy."""
        return self._worker.state

    async def check_health(self) -> None:
        """Called by Serve; raises if this replica must be replaced."""
        await self._worker.check_health()

    async def _compute(self, batch: TokenBatch, compute: Any) -> list[Encoded | ServiceError]:
        outcomes = await self._admit((batch, compute))
        try:
            return [result for outcome in outcomes for result in await outcome]
        finally:  # if the caller was cancelled: items that still wait must not run
            for outcome in outcomes:
                outcome.cancel()

    @serve.batch(max_batch_size=256, batch_wait_timeout_s=0, max_concurrent_batches=8)
    async def _admit(self, batches: list[tuple[TokenBatch, Any]]) -> list[list[_Outcome]]:
        return [self._submit(batch, compute) for batch, compute in batches]

    def _submit(self, batch: TokenBatch, compute: Any) -> list[_Outcome]:
        """One future for each share of the batch."""
        rows, lengths = batch.rows(), batch.lengths.tolist()
        outcomes: list[_Outcome] = []
        start = 0
        for share in batch.shares:
            part = slice(start, start + share.count)
            start += share.count
            texts = [self._text(row, share.want) for row in rows[part]]
            try:
                outcome = self._worker.submit(compute, texts, lengths[part], key=share.key, timeout_s=share.timeout_s)
            except ServiceError as error:  # the backlog is full: only this share is refused
                outcome = asyncio.get_running_loop().create_future()
                outcome.set_result([error] * share.count)
            outcomes.append(outcome)
        return outcomes
