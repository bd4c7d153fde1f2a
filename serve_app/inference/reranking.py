"""Reranking in an ingress replica: tokenise, call the reranker, attribute errors to texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from serve_app.api.inference_results import CallOptions, Explained, Ranked
from serve_app.domain.embeddings import Float32, Int32, TokenBatch
from serve_app.domain.errors import InvalidInputError, ServiceError
from serve_app.domain.profiles import Capability, TextRole
from serve_app.domain.rank_request import QUERY, RankRequest, Scores, TokenMatches
from serve_app.inference.deadline import RequestDeadline
from serve_app.inference.model_registry import ModelRegistry
from serve_app.inference.replica_caller import ReplicaCaller, next_key
from serve_app.inference.request_tokens import RequestMetrics, count, require_few_tokens, truncated_texts
from serve_app.inference.served_model import ServedModel
from serve_app.models.tokenised import Tokenised

T = TypeVar("T")

_NO_QUERY: Int32 = np.empty(0, np.int32)  # for a cross-encoder, whose pairs contain the query


class RerankClient:
    """Calls the rerankers; the first one is the default."""

    def __init__(
        self,
        models: ModelRegistry[ReplicaCaller],
        others: ModelRegistry[Any],
        max_request_tokens: int,
        metrics: RequestMetrics,
    ) -> None:
        """Takes the rerankers, the embedding models, and the largest number of tokens of a request."""
        self.models = models
        self._others = others
        self._max_request_tokens = max_request_tokens
        self._metrics = metrics

    async def rerank(
        self, query: str, candidates: Sequence[str], options: CallOptions, *, batch_size: int, normalize: bool
    ) -> Ranked:
        """See ``InferenceProtocol.rerank``. A repeated candidate is scored once."""
        distinct = list(dict.fromkeys(candidates))
        place = {text: i for i, text in enumerate(distinct)}
        rows = [place[text] for text in candidates]
        try:
            ranked, tokens = await self._rank(query, distinct, options, batch_size=batch_size, normalize=normalize)
        except ServiceError as error:
            if error.item is not None and error.item != QUERY:
                error.item = rows.index(error.item)
            raise
        cut = set(ranked.truncated)
        truncated = [QUERY] * (QUERY in cut) + [i for i, row in enumerate(rows) if row in cut]
        return replace(ranked, scores=ranked.scores[rows], tokens=tokens(rows), truncated=truncated)

    async def _rank(
        self, query: str, candidates: Sequence[str], options: CallOptions, *, batch_size: int, normalize: bool
    ) -> tuple[Ranked, Callable[[list[int]], int]]:
        """The scores, and a function that counts the tokens of the query and of candidates, which may repeat."""
        deadline = RequestDeadline(options)
        served = await deadline.within(self._pick(options.model, frozenset(), "reranking"))
        served.caller.require_ready()
        reads_pairs = Capability.PAIR_SCORE in served.capabilities
        if reads_pairs:
            texts = await deadline.within(served.tokenise_pairs(query, candidates, options))
            parts, ids = [texts], _NO_QUERY
            cut = _truncated_pairs(texts, options, served.source.max_tokens)
        else:
            query_options = replace(options, max_tokens=options.max_query_tokens)
            head = await deadline.within(served.tokenise([query], TextRole.QUERY, query_options))
            reading = served.tokenise(candidates, TextRole.PASSAGE, options)
            texts = await deadline.within(reading)
            parts, ids = [head, texts], head.ids
            cut = truncated_texts(head, query_options, first=QUERY) + truncated_texts(texts, options)
        require_few_tokens(parts, self._max_request_tokens, options.total)
        tokenised_s = deadline.elapsed_s
        request = RankRequest(ids, served.batch(texts), next_key(), deadline.left_s, batch_size)
        read = count(self._metrics, parts)
        scores: Scores = await deadline.within(served.caller.call("rank", request))
        if scores.failures:
            raise scores.failures[0].error()
        self._metrics.observe(tokenised_s, deadline.elapsed_s - tokenised_s)
        values = _scaled(scores.values, len(ids), reads_pairs, normalize)
        lengths = texts.lengths.astype(np.int64)
        return Ranked(served.source.name, values, read, cut), lambda rows: len(ids) + int(lengths[rows].sum())

    async def forward(self, served: ServedModel[ReplicaCaller], timeout_s: float) -> None:
        """Scores a short text, for the readiness check.

        Raises:
            ServiceError: The forward failed, or took longer than ``timeout_s`` seconds.
        """
        options = CallOptions(served.source.name, truncate=True, timeout_s=timeout_s)
        await self._rank("ready?", ["yes"], options, batch_size=1, normalize=True)

    async def explain(self, query: str, candidate: str, options: CallOptions) -> Explained:
        """See ``InferenceProtocol.explain``."""
        needed = frozenset({Capability.COLBERT})
        what = "explanations (late interaction)"
        deadline = RequestDeadline(options)
        served = await deadline.within(self._pick(options.model, needed, what))
        served.caller.require_ready()
        tokens = await deadline.within(served.tokenise([query, candidate], TextRole.PASSAGE))
        cut = truncated_texts(tokens, options, first=QUERY)
        query_ids, candidate_ids = tokens.batch().rows()
        candidates = TokenBatch.of_rows([candidate_ids], model_version=served.model_version)
        request = RankRequest(query_ids, candidates, next_key(), deadline.left_s, 1)
        count(self._metrics, [tokens])
        matches: TokenMatches = await deadline.within(served.caller.call("explain", request))
        vocabulary = served.tokenizer.vocabulary
        return Explained(
            served.source.name,
            vocabulary.pieces(query_ids[1:].tolist()),
            vocabulary.pieces(candidate_ids[1:].tolist()),
            matches,
            cut,
        )

    async def _pick(self, name: str | None, needed: frozenset[Capability], what: str) -> ServedModel[ReplicaCaller]:
        return await self.models.pick(name, needed, what, others=self._others)


def _truncated_pairs(pairs: Tokenised, options: CallOptions, limit: int) -> list[int]:
    """As ``truncated_texts``, for pairs; a pair is shorter than ``limit`` tokens only if its query was truncated."""
    cut = pairs.truncated
    if cut and not options.truncate:
        length, full_length = int(pairs.lengths[cut[0]]), int(pairs.full_lengths[cut[0]])
        if options.max_tokens is not None or options.max_query_tokens is not None:
            raise InvalidInputError(
                f"{full_length} tokens together with the query are over the limits that the request sets; "
                f"shorten the text, or allow truncation",
                item=cut[0],
            )
        if length < limit:
            raise InvalidInputError(
                f"longer than its share of the {limit} tokens of a pair; "
                f"shorten the text, or send truncate: true to have it cut",
                item=QUERY,
            )
        raise InvalidInputError(
            f"{full_length} tokens together with the query, the model's limit is {limit}; "
            f"shorten the text, or send truncate: true to have it cut",
            item=cut[0],
        )
    return cut


def _scaled(values: Float32, query_ids: int, reads_pairs: bool, normalize: bool) -> Float32:
    exact = values.astype(np.float64)
    if normalize:
        exact = 1 / (1 + np.exp(-exact)) if reads_pairs else exact / (query_ids - 1)  # the first token has no vector
    return exact.astype(np.float32)
