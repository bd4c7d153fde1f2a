"""MaxSim: the late-interaction score of a candidate for a query.

``score = sum over query tokens of the max over candidate tokens of query . candidate``, from ColBERT
(Khattab and Zaharia, 2020). BGE-M3's ``colbert_score`` is the same divided by the number of query
tokens. Letters in shapes: ``q`` query tokens, ``n`` candidates, ``t`` tokens of all of them, ``d`` width of a
token's vector.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from serve_app.domain.ragged import chunk_slices

MAX_SIMILARITIES = 1 << 24  # 64 MiB in float32: a GPU is busy with less, and two 8,192-token texts have four times that


def max_sim(
    query_vectors: torch.Tensor,
    candidate_vectors: torch.Tensor,
    lengths: NDArray[np.int64],
    *,
    max_similarities: int = MAX_SIMILARITIES,
) -> torch.Tensor:
    """Scores of some candidates for one query, computed in float32 where the tensors are.

    Args:
        query_vectors: ``[q, d]``, any float type, at least one token.
        candidate_vectors: ``[t, d]``, any float type; the candidates one after the other, without padding.
        lengths: int64 ``[n]`` on the host, tokens of each candidate; their sum is ``t``.
        max_similarities: Bound of the block ``[tokens, q]`` that is in memory at a time; where one candidate token
            alone has more similarities (``q`` of them), the block holds these.

    Returns:
        float32 ``[n]`` in the order of the candidates, each between ``-q`` and ``q`` if the vectors have unit length.
        ``-inf`` for a candidate without tokens. Where a vector is not a number, neither is the score, on a CPU; on a
        GPU the score may be a number, so check the vectors.

    Example:
        >>> query = torch.tensor([[1, 0], [0, 1]])
        >>> candidates = torch.tensor([[1, 0], [0, -2], [-1, -3]])
        >>> max_sim(query, candidates, np.array([2, 1]))
        tensor([ 1., -4.])
    """
    query = query_vectors.float()
    tokens = max(1, max_similarities // len(query))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    scores = query.new_empty(len(lengths))
    for run in chunk_slices(lengths.tolist(), tokens):
        part = candidate_vectors[offsets[run.start] : offsets[run.stop]]
        scores[run] = _best(query, part, lengths[run], tokens).sum(dim=1)
    return scores


def _best(query: torch.Tensor, candidates: torch.Tensor, lengths: NDArray[np.int64], tokens: int) -> torch.Tensor:
    """float32 ``[n, q]``: the best similarity of each query token, from ``tokens`` candidate tokens at a time."""
    best = query.new_full((len(lengths), len(query)), -torch.inf)
    segments = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)).to(query.device, non_blocking=True)
    for start in range(0, len(candidates), tokens):
        part = slice(start, start + tokens)
        similarities = candidates[part].float() @ query.T  # [tokens, q]
        best.scatter_reduce_(0, segments[part, None].expand_as(similarities), similarities, "amax")
    return best


def best_matches(
    query_vectors: torch.Tensor, candidate_vectors: torch.Tensor, *, max_similarities: int = MAX_SIMILARITIES
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best candidate token for each query token: the terms of a score of ``max_sim``.

    Args:
        query_vectors: ``[q, d]``, any float type.
        candidate_vectors: ``[t, d]``, any float type, no padding, at least one token.
        max_similarities: Bound of the block ``[rows, t]`` that is in memory at a time, or one row.

    Returns:
        int64 ``[q]``, indices into the candidate's tokens, and float32 ``[q]``, their similarities.
    """
    rows = max(1, max_similarities // len(candidate_vectors))
    query, candidate = query_vectors.float(), candidate_vectors.float()
    parts = [(query[i : i + rows] @ candidate.T).max(dim=1) for i in range(0, len(query), rows)]
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])
