"""Reranking by late interaction: queries and candidates of several requests in one forward.

Token vectors are megabytes, so they stay on the device where they were made. A query is encoded once;
its vectors travel with its candidates as a reference, and only their scores leave the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast

from serve_app.domain.embeddings import Int32
from serve_app.domain.errors import NonFiniteError, ServiceError
from serve_app.domain.rank_request import TokenMatches
from serve_app.models.batching.isolation import run_isolated
from serve_app.models.openmp import wait_passively
from serve_app.models.scoring import best_matches, max_sim

wait_passively()

import torch
from torch.nn.utils.rnn import pad_sequence


class TokenEncoder(Protocol):
    """What computes the token vectors: an ``EmbeddingModel`` with heads."""

    def token_vectors(self, texts: Sequence[Int32]) -> list[torch.Tensor]:
        """float32 ``[length - 1, d]`` on the device for each text: unit vectors of all tokens but the first.

        No views of a larger block: the vectors of a query outlive the micro-batch they were computed in.
        """
        ...

    def release_memory(self) -> None:
        """Gives cached device memory back."""
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
        query_vectors: float32 ``[q, d]`` on the device, what ``forward`` gave for the query. Candidates that
            hold the same object are scored together.
    """

    ids: Int32
    query_vectors: torch.Tensor


RerankItem: TypeAlias = QueryText | CandidateText
RerankResult: TypeAlias = torch.Tensor | float | ServiceError


class LateInteractionModel:
    """A loaded ColBERT model whose failures stay with the text that caused them. One caller at a time."""

    def __init__(self, encoder: TokenEncoder) -> None:
        """Wraps an encoder that is ready to compute."""
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
        vectors = self.encoder.token_vectors([item.ids for item in items])
        # a query has no score; the sum of its vectors stands in, because NaN or infinity in any of them shows there
        scores = torch.stack([each.sum() for each in vectors])
        for query, rows in _by_query(items):
            scores[rows] = max_sim(query, *_padded([vectors[i] for i in rows]))
        return [_result(item, each, score) for item, each, score in zip(items, vectors, scores.tolist(), strict=True)]

    @torch.inference_mode()
    def _explain_all(self, items: Sequence[CandidateText]) -> list[TokenMatches | ServiceError]:
        results: list[TokenMatches | ServiceError] = []
        for item, vectors in zip(items, self.encoder.token_vectors([item.ids for item in items]), strict=True):
            indices, similarities = best_matches(item.query_vectors, vectors)
            if similarities.isfinite().all():
                results.append(TokenMatches(indices.cpu().numpy() + 1, similarities.cpu().numpy()))
            else:
                results.append(_non_finite())
        return results


def _by_query(items: Sequence[RerankItem]) -> list[tuple[torch.Tensor, list[int]]]:
    """The indices of the candidates of each query."""
    groups: dict[int, tuple[torch.Tensor, list[int]]] = {}
    for i, item in enumerate(items):
        if isinstance(item, CandidateText):
            groups.setdefault(id(item.query_vectors), (item.query_vectors, []))[1].append(i)
    return list(groups.values())


def _padded(vectors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """``[n, t, d]`` vectors, padded to the longest, and bool ``[n, t]``, true where a token is real."""
    device = vectors[0].device
    lengths = torch.tensor([len(each) for each in vectors], device=device)
    padded = pad_sequence(list(vectors), batch_first=True)
    return padded, torch.arange(padded.shape[1], device=device) < lengths[:, None]


def _result(item: RerankItem, vectors: torch.Tensor, score: float) -> RerankResult:
    if not math.isfinite(score):
        return _non_finite()
    return vectors if isinstance(item, QueryText) else score


def _non_finite() -> NonFiniteError:
    return NonFiniteError("the model computed no finite token vectors for this text")
