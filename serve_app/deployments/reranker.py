"""The reranker: one scoring model on one share of a device; token vectors stay here, scores leave."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from serve_app.deployments.console import keep_log_fresh, telling_why
from serve_app.deployments.device import Device, ReplicaState
from serve_app.domain.embeddings import Int32, ItemFailure
from serve_app.domain.errors import ServiceError
from serve_app.domain.profiles import Capability
from serve_app.domain.reranking import QUERY, RankRequest, Scores, TokenMatches
from serve_app.models.openmp import threads_for
from serve_app.models.source import find_model
from serve_app.settings import RerankerSettings


class Reranker:
    """Scores candidates for a query. Micro-batches are formed across requests, by tokens."""

    async def __init__(self, settings: RerankerSettings, models_dir: Path) -> None:  # type: ignore[misc]
        """Loads the model and proves that it computes.

        Raises:
            ModelLoadError: The model can not be found, read or placed; the replica does not start.
        """
        from serve_app.models.loader import load_cross_encoder, load_model  # torch: seconds to import, and only here
        from serve_app.models.reranking import CandidateText, LateInteractionModel, QueryText

        auto = threads_for(settings.num_cpus, settings.most_replicas)
        threads = auto if settings.threads == "auto" else settings.threads
        self._reads_pairs = settings.kind == "cross-encoder"
        self._query, self._candidate = QueryText, CandidateText
        with telling_why(f"the reranker {settings.name!r}"):
            source = find_model(settings.name, models_dir, family=settings.family)
            source.require(Capability.PAIR_SCORE if self._reads_pairs else Capability.COLBERT)
            load: Any = load_cross_encoder if self._reads_pairs else load_model
            model = load(source, device=settings.device, dtype=settings.dtype, threads=threads)
        where = model if self._reads_pairs else model.transformer
        self._model: Any = model if self._reads_pairs else LateInteractionModel(model)
        probe = np.full(8, 5, np.int32)
        self._device: Device[Any, Any] = Device(
            self._model.forward,
            probe=probe if self._reads_pairs else QueryText(probe),
            settings=settings,
            state=ReplicaState(str(where.device), where.dtype_name, threads),
        )
        await self._device.start()
        self._log_keeper = asyncio.get_running_loop().create_task(keep_log_fresh())

    async def rank(self, request: RankRequest) -> Scores:
        """Scores of the candidates; what failed or was refused is named in the answer."""
        items: list[Any] = list(request.candidates.rows())
        lengths = request.candidates.lengths.tolist()
        try:
            if not self._reads_pairs:
                query = await self._encode_query(request.query, request.key, request.timeout_s)
                items = [self._candidate(ids, query) for ids in items]
            results = await self._compute(items, lengths, request.key, request.timeout_s, request.batch_size)
        except ServiceError as error:  # answered, not raised: a full queue is no event for Ray's error log
            return Scores(np.zeros(len(items), np.float32), (ItemFailure.of(QUERY, error),))
        failures = [ItemFailure.of(i, r) for i, r in enumerate(results) if isinstance(r, ServiceError)]
        for failure in failures:
            self._device.metrics.count_failure(failure.code)
        values = [0.0 if isinstance(result, ServiceError) else result for result in results]
        return Scores(np.array(values, np.float32), tuple(failures))

    async def explain(self, request: RankRequest) -> TokenMatches:
        """Where the score of the request's only candidate comes from; for late interaction alone.

        Raises:
            ServiceError: A text failed, or there was no room for the request.
        """
        query = await self._encode_query(request.query, request.key, request.timeout_s)
        explanation = await self._device.run(partial(self._model.explain, query, request.candidates.ids))
        return TokenMatches(explanation.positions, explanation.similarities)

    async def state(self) -> ReplicaState:
        """Answers at once, whatever the device is doing; proves that a replica is there."""
        return self._device.state

    async def check_health(self) -> None:
        """Asked by Serve; raises if this replica is to be replaced."""
        await self._device.check_health()

    async def _encode_query(self, ids: Int32, key: int, timeout_s: float) -> Any:
        (result,) = await self._compute([self._query(ids)], [len(ids)], key, timeout_s, 1)
        if isinstance(result, ServiceError):
            raise result
        return result

    async def _compute(
        self, items: Sequence[Any], lengths: Sequence[int], key: int, timeout_s: float, max_texts: int
    ) -> list[Any]:
        ticket = self._device.scheduler.submit(items, lengths, key=key, timeout_s=timeout_s, max_texts=max_texts)
        try:
            return await ticket.done
        finally:  # if the caller went away: what still waits must not run
            ticket.done.cancel()
