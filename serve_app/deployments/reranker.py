"""The reranker: one scoring model on one share of a device; only scores leave the replica."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from serve_app.deployments.first_forward import first_forward
from serve_app.deployments.model_worker import ModelWorker
from serve_app.deployments.operator_log import log_startup_failure, start_log_flush
from serve_app.domain.embeddings import ItemFailure
from serve_app.domain.errors import ServiceError
from serve_app.domain.profiles import Capability
from serve_app.domain.rank_request import QUERY, RankRequest, Scores, TokenMatches
from serve_app.inference.chunking import CHUNK_TOKENS, gather_chunks
from serve_app.inference.replica_caller import ReplicaState
from serve_app.models.model_source import find_model
from serve_app.models.openmp import threads_for
from serve_app.settings.model_settings import RerankerSettings


class Reranker:
    """Scores candidates for a query. Micro-batches are formed across requests, by tokens."""

    async def __init__(self, settings: RerankerSettings, models_dir: Path) -> None:  # type: ignore[misc]
        """Loads the model and runs a first forward.

        Raises:
            ModelLoadError: The model cannot be found, read or placed; the replica does not start.
        """
        from serve_app.models.fine_tune_cache import FineTuneCache  # torch: seconds to import, and only here
        from serve_app.models.late_interaction import CandidateText, LateInteractionModel, QueryText
        from serve_app.models.loader import load_cross_encoder, load_model

        auto = threads_for(settings.num_cpus, settings.max_replicas)
        threads = auto if settings.threads == "auto" else settings.threads
        self._reads_pairs = settings.kind == "cross-encoder"
        self._query, self._candidate = QueryText, CandidateText
        kind: Any = load_cross_encoder if self._reads_pairs else load_model
        load = partial(kind, device=settings.device, dtype=settings.dtype, threads=threads)
        what = f"the reranker {settings.name!r}"
        with log_startup_failure(what):
            source = find_model(settings.name, models_dir, family=settings.family)
            source.require(Capability.PAIR_SCORE if self._reads_pairs else Capability.COLBERT)
            model = load(source)
        where = model if self._reads_pairs else model.transformer
        self._model: Any = model if self._reads_pairs else LateInteractionModel(model)
        probe = np.full(8, 5, np.int32)
        self._worker: ModelWorker[Any, Any] = ModelWorker(
            self._model.forward,
            probe=probe if self._reads_pairs else QueryText(probe),
            settings=settings,
            state=ReplicaState(str(where.device), where.dtype_name, threads),
        )
        self._fine_tunes: FineTuneCache[Any] | None = None  # cross-encoders have no fine-tunes
        if not self._reads_pairs:
            self._fine_tunes = FineTuneCache(
                settings.name,
                model,
                models_dir=models_dir,
                max_bytes=settings.max_fine_tunes_bytes,
                load=load,
                wrap=LateInteractionModel,
                on_device=self._worker.run,
            )
        with log_startup_failure(what, is_last=True):
            await first_forward(self._worker, source, where.dtype_name)
        start_log_flush(self._worker.tasks)

    async def rank(self, request: RankRequest) -> Scores:
        """Scores of the candidates; candidates that failed or were refused are listed in the answer."""
        try:
            async with self._use(request) as model:
                results = await self._score(request, model)
        except ServiceError as error:  # returned, not raised: a full queue does not belong in Ray's error log
            nothing = np.zeros(len(request.candidates.lengths), np.float32)
            return Scores(nothing, (ItemFailure.of(QUERY, error),))
        failures = [ItemFailure.of(i, r) for i, r in enumerate(results) if isinstance(r, ServiceError)]
        for failure in failures:
            self._worker.metrics.count_failure(failure.code)
        values = [0.0 if isinstance(result, ServiceError) else result for result in results]
        return Scores(np.array(values, np.float32), tuple(failures))

    async def explain(self, request: RankRequest) -> TokenMatches:
        """The token matches behind the score of the request's only candidate; late interaction only.

        Raises:
            ServiceError: A text failed, or the backlog was full.
        """
        async with self._use(request) as model:
            items = await self._items(request, model)
            (result,) = await self._compute(request, model.explain, items, request.candidates.lengths.tolist(), 1)
        if isinstance(result, ServiceError):
            raise result
        matches: TokenMatches = result
        return matches

    async def state(self) -> ReplicaState:
        """The replica's state, returned at once even while the device is busy."""
        return self._worker.state

    async def check_health(self) -> None:
        """Called by Serve; raises if this replica must be replaced."""
        await self._worker.check_health()

    def _use(self, request: RankRequest) -> AbstractAsyncContextManager[Any]:
        return self._fine_tunes.use(request.candidates.model_version) if self._fine_tunes else nullcontext(self._model)

    async def _score(self, request: RankRequest, model: Any) -> list[Any]:
        items, lengths = await self._items(request, model), request.candidates.lengths.tolist()

        async def send(part: slice) -> list[Any]:
            return await self._compute(request, model.forward, items[part], lengths[part], request.batch_size)

        parts = await gather_chunks(request.candidates.slices(CHUNK_TOKENS), send)
        return [result for part in parts for result in part]

    async def _items(self, request: RankRequest, model: Any) -> list[Any]:
        """The model's input for each candidate; for late interaction the query is encoded first."""
        rows = request.candidates.rows()
        if self._reads_pairs:
            return list(rows)
        (query,) = await self._compute(
            request, model.forward, [self._query(request.query)], [len(request.query)], request.batch_size
        )
        if isinstance(query, ServiceError):
            raise query
        return [self._candidate(ids, query) for ids in rows]

    async def _compute(
        self, request: RankRequest, compute: Any, items: Sequence[Any], lengths: Sequence[int], max_texts: int
    ) -> list[Any]:
        outcome = self._worker.submit(
            compute, items, lengths, key=request.key, timeout_s=request.timeout_s, max_texts=max_texts
        )
        try:
            return await outcome
        finally:  # if the caller was cancelled: items that still wait must not run
            outcome.cancel()
