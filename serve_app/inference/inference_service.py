"""The service behind the routes: tokenise, encode, and attribute errors to texts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from serve_app.api.inference_results import CallOptions, Embedded, HybridEmbedded, SparseEmbedded, TokenEmbedded, Use
from serve_app.api.model_states import Capacity, ModelState, Readiness
from serve_app.domain.embeddings import DENSE, EncodedBatch, Float32
from serve_app.domain.errors import DeadlineError, InvalidInputError, QueueFullError
from serve_app.domain.executors import LIST_THREADS, run_io
from serve_app.domain.model_uses import ModelUses
from serve_app.domain.profiles import Capability, TextRole
from serve_app.domain.request_limits import Limits
from serve_app.domain.tokens import Token
from serve_app.inference.deadline import RequestDeadline, within
from serve_app.inference.encoder_client import EncoderClient
from serve_app.inference.model_registry import ModelRegistry
from serve_app.inference.readiness import STATE_S, reason_not_ready, state_of
from serve_app.inference.request_tokens import RequestMetrics, count, require_few_tokens, truncated_texts
from serve_app.inference.reranking import RerankClient
from serve_app.inference.served_model import ServedModel
from serve_app.models.fine_tunes import delete_fine_tune
from serve_app.models.tokenised import Tokenised

_HYBRID = frozenset({Capability.DENSE, Capability.SPARSE, Capability.COLBERT})
_SPARSE = frozenset({Capability.SPARSE})
_STATES = frozenset({Capability.DENSE, Capability.TOKEN_STATES})
_CAPACITY = Capacity(max_concurrent_requests=1, tokenization_workers=LIST_THREADS)
_INLINE_WEIGHTS = 4000  # about a millisecond of conversion

T = TypeVar("T")


class InferenceService:
    """Implements ``api.inference_protocol.InferenceProtocol`` on deployment handles."""

    def __init__(
        self,
        models: ModelRegistry[EncoderClient],
        rerankers: RerankClient,
        models_dir: Path,
        limits: Limits,
        metrics: RequestMetrics,
        capacity: Capacity = _CAPACITY,
    ) -> None:
        """Takes the served models, the default one first."""
        self.capacity = capacity
        self._models_dir = models_dir
        self._models = models
        self._rerankers = rerankers
        self._limits = limits
        self._metrics = metrics
        self.rerank = rerankers.rerank
        self.explain = rerankers.explain

    async def embed(self, texts: Sequence[str], role: TextRole | None, options: CallOptions) -> Embedded:
        """See ``InferenceProtocol.embed``."""
        deadline = RequestDeadline(options)
        served = await deadline.within(self._pick(options.model, DENSE, "dense vectors"))
        tokens = await deadline.within(served.tokenise(texts, role, options))
        return await self._embed(served, tokens, options, deadline)

    async def embed_ids(self, rows: Sequence[Sequence[int]], options: CallOptions) -> Embedded:
        """See ``InferenceProtocol.embed_ids``."""
        deadline = RequestDeadline(options)
        served = await deadline.within(self._pick(options.model, DENSE, "dense vectors"))
        tokens = await deadline.within(served.of_ids(rows, options))
        return await self._embed(served, tokens, options, deadline)

    async def embed_tokens(self, texts: Sequence[str], role: TextRole | None, options: CallOptions) -> TokenEmbedded:
        """See ``InferenceProtocol.embed_tokens``."""
        deadline = RequestDeadline(options)
        served = await deadline.within(self._pick(options.model, DENSE, "dense vectors"))
        tokens = await deadline.within(served.tokenise(texts, role, options))
        cut = truncated_texts(tokens, options)
        self._check_size(len(tokens.ids), served.source.dimension, "inputs")
        answer = await self._encode(served, tokens, options, deadline, _STATES)
        assert answer.states is not None
        return TokenEmbedded(served.source.name, answer.states.rows(), len(tokens.ids), cut)

    async def encode(
        self, texts: Sequence[str], options: CallOptions, *, colbert: bool, by_id: bool = False
    ) -> HybridEmbedded:
        """See ``InferenceProtocol.encode``."""
        deadline = RequestDeadline(options)
        served = await deadline.within(self._pick(options.model, _HYBRID, "hybrid vectors"))
        tokens = await deadline.within(served.tokenise(texts, TextRole.PASSAGE))
        cut = truncated_texts(tokens, options)
        if colbert:
            self._check_size(len(tokens.ids), served.source.dimension, "return_colbert")
        want = _HYBRID if colbert else _HYBRID - {Capability.COLBERT}
        answer = await self._encode(served, tokens, options, deadline, want)
        vocabulary = served.tokenizer.vocabulary
        vectors = answer.colbert.rows() if answer.colbert is not None else None
        by_text = [] if by_id else await _by_text(vocabulary.weights_by_text, answer)
        weights = await _by_text(vocabulary.weights_by_id, answer) if by_id else None
        return HybridEmbedded(served.source.name, answer.dense, len(tokens.ids), cut, by_text, vectors, weights)

    async def encode_sparse(self, texts: Sequence[str], role: TextRole | None, options: CallOptions) -> SparseEmbedded:
        """See ``InferenceProtocol.encode_sparse``."""
        deadline = RequestDeadline(options)
        served = await deadline.within(self._pick(options.model, _SPARSE, "sparse vectors"))
        tokens = await deadline.within(served.tokenise(texts, role, options))
        cut = truncated_texts(tokens, options)
        answer = await self._encode(served, tokens, options, deadline, _SPARSE | DENSE)
        numbered = served.tokenizer.vocabulary.weights_by_id
        weights = await _by_text(numbered, answer)
        return SparseEmbedded(served.source.name, weights, cut)

    async def tokenize(
        self, texts: Sequence[str], role: TextRole | None, model: str | None, *, special: bool
    ) -> Sequence[Sequence[Token]]:
        """See ``InferenceProtocol.tokenize``."""
        served = await within(self._limits.request_timeout_s, self._pick(model, frozenset(), "tokens"))
        return await within(self._limits.request_timeout_s, served.tokens(texts, role, special=special))

    async def decode(self, rows: Sequence[Sequence[int]], model: str | None, *, special: bool) -> Sequence[str]:
        """See ``InferenceProtocol.decode``."""
        served = await within(self._limits.request_timeout_s, self._pick(model, frozenset(), "tokens"))
        return await within(self._limits.request_timeout_s, served.decode(rows, special=special))

    async def find(self, model: str | None, use: Use) -> ModelState:
        """See ``InferenceProtocol.find``."""
        if use == "embed":
            return (await self._pick(model, DENSE, "dense vectors")).state()
        if use == "hybrid":
            return (await self._pick(model, _HYBRID, "hybrid vectors")).state()
        return (await self._rerankers.models.pick(model, frozenset(), "reranking", others=self._models)).state()

    async def models(self) -> Sequence[ModelState]:
        """See ``InferenceProtocol.models``. A model that embeds and reranks is one entry."""
        return await run_io(self._states)

    def _states(self) -> list[ModelState]:
        states: dict[str, ModelState] = {}
        for registry, route in ((self._models, "embed"), (self._rerankers.models, "rerank")):
            for served in registry.all():
                known = states.setdefault(served.source.name, served.state())
                states[served.source.name] = replace(known, serves=(*known.serves, route))
        named = [
            replace(states[name], name=alias, alias_of=name)
            for alias, name in self._models.aliases.items()
            if name in states
        ]
        return [*states.values(), *named]

    async def delete_model(self, name: str, jobs_by_base: Mapping[str, str]) -> None:
        """See ``InferenceProtocol.delete_model``."""
        configured = self._models.configured.keys() | self._rerankers.models.configured.keys()
        uses = ModelUses(self._models.aliases, configured, jobs_by_base)
        await asyncio.to_thread(delete_fine_tune, name, self._models_dir, uses)

    async def check(self, *, timeout_s: float) -> ModelState:
        """See ``InferenceProtocol.check``."""
        served = await self._pick(None, DENSE, "dense vectors")
        try:
            await self._forward(served, timeout_s - STATE_S)
        except (QueueFullError, DeadlineError):  # busy, or broken?
            await served.caller.require_responsive(timeout_s=STATE_S)
        return served.state()

    async def readiness(self, *, timeout_s: float) -> Readiness:
        """See ``InferenceProtocol.readiness``."""
        default = await self._pick(None, DENSE, "dense vectors")
        encoders = sorted(self._models.configured.values(), key=lambda served: served is not default)
        states = [
            state_of(served, partial(self._forward, served), serves="embed", timeout_s=timeout_s) for served in encoders
        ]
        states += [
            state_of(served, partial(self._rerankers.forward, served), serves="rerank", timeout_s=timeout_s)
            for served in self._rerankers.models.configured.values()
        ]
        models = await asyncio.gather(*states)
        return Readiness(default.state(), models, reason_not_ready(models))

    @staticmethod
    async def _forward(served: ServedModel[EncoderClient], timeout_s: float) -> None:
        tokens = await served.tokenise(["ready?"], TextRole.QUERY)
        answer = await served.caller.encode(served.batch(tokens), timeout_s=timeout_s)
        if answer.failures:
            raise answer.failures[0].error()

    async def _pick(self, name: str | None, needed: frozenset[Capability], what: str) -> ServedModel[EncoderClient]:
        return await self._models.pick(name, needed, what, others=self._rerankers.models)

    async def _embed(
        self, served: ServedModel[EncoderClient], tokens: Tokenised, options: CallOptions, deadline: RequestDeadline
    ) -> Embedded:
        cut = truncated_texts(tokens, options)
        want = DENSE if options.normalize else DENSE | {Capability.UNNORMALIZED}
        answer = await self._encode(served, tokens, options, deadline, want)
        return Embedded(served.source.name, answer.dense, len(tokens.ids), cut)

    async def _encode(
        self,
        served: ServedModel[EncoderClient],
        tokens: Tokenised,
        options: CallOptions,
        deadline: RequestDeadline,
        want: frozenset[Capability],
    ) -> EncodedBatch:
        require_few_tokens([tokens], self._limits.max_request_tokens, options.total)
        tokenised_s = deadline.elapsed_s
        count(self._metrics, [tokens])
        answer = await served.caller.encode(
            served.batch(tokens), timeout_s=deadline.left_s, want=want, stated_s=options.stated_s
        )
        self._metrics.observe(tokenised_s, deadline.elapsed_s - tokenised_s)
        if answer.failures:
            raise answer.failures[0].error()
        return answer

    def _check_size(self, tokens: int, dimension: int, field: str) -> None:
        most = self._limits.max_colbert_floats
        if tokens * dimension > most:
            raise InvalidInputError(
                f"{field}: {tokens} tokens of {dimension} numbers each are over the limit of {most} numbers "
                f"in a reply; send fewer or shorter texts at once (up to {most // dimension} tokens), or do without"
            )


async def _by_text(convert: Callable[[list[int], Float32], T], answer: EncodedBatch) -> list[T]:
    """The sparse rows of all texts in the form of the reply; many are converted in a thread."""
    assert answer.sparse_ids is not None
    if len(answer.sparse_ids.values) <= _INLINE_WEIGHTS:
        return [convert(ids, weights) for ids, weights in _sparse_rows(answer)]
    return await asyncio.to_thread(lambda: [convert(ids, weights) for ids, weights in _sparse_rows(answer)])


def _sparse_rows(answer: EncodedBatch) -> Iterator[tuple[list[int], Float32]]:
    """Ids and weights of each text; the weights stay float32, which orjson writes shorter."""
    assert answer.sparse_ids is not None
    assert answer.sparse_weights is not None
    for ids, weights in zip(answer.sparse_ids.rows(), answer.sparse_weights.rows(), strict=True):
        yield ids.tolist(), weights
