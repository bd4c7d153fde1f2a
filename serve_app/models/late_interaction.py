"""Reranking by late interaction: queries and candidates of several requests in one forward.

Token vectors are megabytes, so they stay on their device. A query is encoded once;
its candidates hold a reference to its vectors, and only scores leave the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray

from serve_app.domain.embeddings import Int32
from serve_app.domain.errors import NonFiniteError, ServiceError
from serve_app.domain.rank_request import TokenMatches
from serve_app.models.backbone.encoder_output import lengths_of
from serve_app.models.batching.isolation import run_isolated
from serve_app.models.scoring import best_matches, max_sim


class TokenEncoder(Protocol):
    """A model that computes token vectors: an ``EmbeddingModel`` with heads."""

    def token_vectors(self, texts: Sequence[Int32]) -> torch.Tensor:
        """float32 ``[tokens - n, d]`` on the device: unit vectors, in order, of all tokens but the first of a text."""
        ...

    def release_memory(self) -> None:
        """Releases cached device memory."""
        ...


@dataclass(frozen=True, eq=False)
class QueryText:
    """A query to encode.

    Attributes:
        ids: int32 ``[length]``, special tokens included.
    """

    ids: Int32


@dataclass(frozen=True, eq=False)
class CandidateText:
    """A candidate to score.

    Attributes:
        ids: int32 ``[length]``, special tokens included.
        query_vectors: float32 ``[q, d]`` on the device, the result of ``forward`` for the query. Candidates that
            hold the same object are scored together.
    """

    ids: Int32
    query_vectors: torch.Tensor


RerankItem: TypeAlias = QueryText | CandidateText
RerankResult: TypeAlias = torch.Tensor | float | ServiceError


class LateInteractionModel:
    """A loaded ColBERT model with an error for each text that fails. One caller at a time."""

    def __init__(self, encoder: TokenEncoder) -> None:
        """Wraps a loaded encoder."""
        self.encoder = encoder

    def forward(self, items: Sequence[RerankItem]) -> list[RerankResult]:
        """Computes one micro-batch, which may come from several requests. Never raises.

        Returns:
            For each item, in order: for a query its vectors, float32 ``[q, d]`` on the device; for a
            candidate the SUM over query tokens of ``max_sim`` (divide by ``q`` for the mean); or an error.
        """
        results = run_isolated(self._forward_all, items, release_memory=self.encoder.release_memory)
        return cast("list[RerankResult]", results)  # mypy sees two members of the union as one object

    def explain(self, items: Sequence[CandidateText]) -> list[TokenMatches | ServiceError]:
        """The token matches behind the score of each candidate. Never raises; costs the same as ``forward``."""
        return run_isolated(self._explain_all, items, release_memory=self.encoder.release_memory)

    @torch.inference_mode()
    def _forward_all(self, items: Sequence[RerankItem]) -> list[RerankResult]:
        vectors, lengths = self._vectors(items)
        texts = torch.split(vectors, lengths.tolist())
        # NaN or infinity in any vector of a text shows in the sum of all; a query has no other score
        sums = torch.stack([each.sum() for each in texts])
        scores = sums.clone()
        for query, rows in _by_query(items):
            candidates = vectors if len(rows) == len(items) else torch.cat([texts[i] for i in rows])
            scores[rows] = max_sim(query, candidates, lengths[rows]) + 0 * sums[rows]
        return [_result(item, each, score) for item, each, score in zip(items, texts, scores.tolist(), strict=True)]

    @torch.inference_mode()
    def _explain_all(self, items: Sequence[CandidateText]) -> list[TokenMatches | ServiceError]:
        vectors, lengths = self._vectors(items)
        results: list[TokenMatches | ServiceError] = []
        for item, candidate in zip(items, torch.split(vectors, lengths.tolist()), strict=True):
            indices, similarities = best_matches(item.query_vectors, candidate)
            if similarities.isfinite().all():
                results.append(TokenMatches(indices.cpu().numpy() + 1, similarities.cpu().numpy()))
            else:
                results.append(_non_finite())
        return results

    def _vectors(self, items: Sequence[RerankItem]) -> tuple[torch.Tensor, NDArray[np.int64]]:
        """float32 ``[vectors, d]`` of all items on the device, and int64 ``[n]``, vectors of each of them."""
        texts = [item.ids for item in items]
        return self.encoder.token_vectors(texts), lengths_of(texts) - 1


def _by_query(items: Sequence[RerankItem]) -> list[tuple[torch.Tensor, list[int]]]:
    """The indices of the candidates of each query."""
    groups: dict[int, tuple[torch.Tensor, list[int]]] = {}
    for i, item in enumerate(items):
        if isinstance(item, CandidateText):
            groups.setdefault(id(item.query_vectors), (item.query_vectors, []))[1].append(i)
    return list(groups.values())


def _result(item: RerankItem, vectors: torch.Tensor, score: float) -> RerankResult:
    if not math.isfinite(score):
        return _non_finite()
    # a copy: the vectors of a query outlive the block of this micro-batch
    return vectors.clone() if isinstance(item, QueryText) else score


def _non_finite() -> NonFiniteError:
    return NonFiniteError("the model computed no finite token vectors for this text")
