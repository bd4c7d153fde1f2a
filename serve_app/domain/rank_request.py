"""Request and results of a reranker replica: token ids in, scores or token matches out, never token vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve_app.domain.embeddings import Float32, Int32, ItemFailure, TokenBatch

QUERY = -1  # the index of the query in a failure


@dataclass(frozen=True)
class RankRequest:
    """One query and its candidates.

    Attributes:
        query: int32 ``[length]``, special tokens included; empty for a cross-encoder, whose candidates contain it.
        candidates: At least one; for a cross-encoder the pairs of query and candidate. Its model version computes.
        key: Identifier of the request, for fair scheduling.
        timeout_s: Seconds until the request times out.
        batch_size: Largest number of this request's candidates in one forward.
    """

    query: Int32
    candidates: TokenBatch
    key: int
    timeout_s: float
    batch_size: int


@dataclass(frozen=True)
class Scores:
    """The reranker's answer.

    Attributes:
        values: float32 ``[n]`` in the order of the candidates, finite; 0 where a candidate failed. Late
            interaction: the sum over query tokens of the largest cosine. Cross-encoder: the logit.
        failures: One entry for each candidate that failed, or one with the index ``QUERY`` for all of them.
    """

    values: Float32
    failures: tuple[ItemFailure, ...] = ()


@dataclass(frozen=True, eq=False)
class TokenMatches:
    """The token matches behind the late-interaction score of one candidate.

    Attributes:
        positions: int64 ``[q]``, for each query token but the first the index of the most similar candidate token;
            index 0 is the candidate's first (special) token.
        similarities: float32 ``[q]``, their cosines; the score is their sum.
    """

    positions: NDArray[np.int64]
    similarities: Float32
