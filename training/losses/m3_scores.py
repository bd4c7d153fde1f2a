"""Scores of every query with every passage by BGE-M3's three heads, and the loss that trains them together.

The loss is the one of "BGE M3-Embedding" (Chen et al., 2024), section 3.2, with the weights of FlagEmbedding's
``finetune.embedder.encoder_only.m3``. Letters in shapes: ``q`` queries, ``p`` passages, ``i`` tokens of the longest
query, ``j`` of the longest passage, ``d`` width of a token's vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from serve_app.models.scoring import MAX_SIMILARITIES
from training.losses.m3_heads import M3Vectors

SPARSE_IN_ENSEMBLE = 0.3  # of its score beside the other two
SPARSE_IN_LOSS = 0.1  # its loss is the largest at first and would drown the others


@dataclass(frozen=True)
class HeadLogits:
    """Logits of each head, float32 ``[q, p]``: similarities divided by the temperature."""

    dense: Tensor
    sparse: Tensor
    colbert: Tensor

    @property
    def ensemble(self) -> Tensor:
        """The heads together, float32 ``[q, p]``."""
        return self.dense + SPARSE_IN_ENSEMBLE * self.sparse + self.colbert


def head_logits(queries: M3Vectors, passages: M3Vectors, *, temperature: float) -> HeadLogits:
    """Logits of all queries with all passages."""
    return HeadLogits(
        dense=queries.dense @ passages.dense.T / temperature,
        sparse=sparse_scores(queries, passages) / temperature,
        colbert=colbert_scores(queries, passages) / temperature,
    )


def sparse_scores(queries: M3Vectors, passages: M3Vectors) -> Tensor:
    """Sums of products of the weights of tokens that query and passage share, float32 ``[q, p]``.

    A token that a text repeats counts once, with its largest weight. A passage's token that no query has cannot
    score, so the matrices are as wide as the queries have different tokens, not as the vocabulary.
    """
    vocabulary = torch.unique(queries.ids[queries.mask])  # sorted
    return _by_token(queries, vocabulary) @ _by_token(passages, vocabulary).T


def _by_token(texts: M3Vectors, vocabulary: Tensor) -> Tensor:
    """Largest weight of each token of the vocabulary (sorted ids) in each text, float32 ``[texts, tokens]``."""
    columns = torch.searchsorted(vocabulary, texts.ids).clamp(max=len(vocabulary) - 1)
    present = texts.mask & (vocabulary[columns] == texts.ids)
    weights = texts.weights.masked_fill(~present, 0.0)  # weights are >= 0, so these change no maximum
    empty = weights.new_zeros(len(texts.ids), len(vocabulary))
    return empty.scatter_reduce(1, columns, weights, reduce="amax")


def colbert_scores(queries: M3Vectors, passages: M3Vectors, *, max_similarities: int = MAX_SIMILARITIES) -> Tensor:
    """Mean over a query's tokens of the best similarity with a passage's token, float32 ``[q, p]``.

    Args:
        queries: At least one token each.
        passages: At least one token each.
        max_similarities: Bound of the block of similarities ``[q, i, p, j]`` that is in memory at a time, forward
            and backward, or the block of one query and one passage. Between the two passes only the position of
            each maximum is kept.
    """
    pair = queries.mask.shape[1] * passages.mask.shape[1]
    columns = max(1, min(len(passages.mask), max_similarities // pair))
    rows = max(1, max_similarities // (pair * columns))
    blocks = [
        torch.cat([_late_interaction(*query, *passage) for passage in _split(passages, columns)], dim=1)
        for query in _split(queries, rows)
    ]
    return torch.cat(blocks)


def _split(texts: M3Vectors, size: int) -> list[tuple[Tensor, Tensor]]:
    """ColBERT vectors and mask of ``size`` texts at a time."""
    return list(zip(torch.split(texts.colbert, size), torch.split(texts.mask, size), strict=True))


def _late_interaction(query: Tensor, query_mask: Tensor, passage: Tensor, passage_mask: Tensor) -> Tensor:
    """One block, ``[q, p]``, of ``[q, i, d]`` with ``[p, j, d]``."""
    similarities = query.flatten(0, 1) @ passage.flatten(0, 1).T
    similarities = similarities.view(*query_mask.shape, *passage_mask.shape)  # [q, i, p, j]
    # in place, and max rather than amax: neither keeps the block for the backward pass
    best = similarities.masked_fill_(~passage_mask, -torch.inf).max(dim=-1).values
    return best.masked_fill(~query_mask[..., None], 0.0).sum(dim=1) / query_mask.sum(dim=1, keepdim=True)


def unified_loss(logits: HeadLogits, targets: Tensor, *, self_distill: bool) -> Tensor:
    """The loss of all heads together, a float32 scalar.

    Each head and their ensemble have an InfoNCE loss against the right passage. With self-distillation the
    ensemble's distribution over the passages is also the soft label of each head; it gives no gradient there.

    Args:
        logits: Each head's ``[q, p]``.
        targets: int64 ``[q]``, each query's passage.
        self_distill: Whether the ensemble teaches the heads.
    """
    cross_entropy = functional.cross_entropy
    sparse = SPARSE_IN_LOSS * cross_entropy(logits.sparse, targets)
    ensemble = cross_entropy(logits.ensemble, targets)
    loss = (cross_entropy(logits.dense, targets) + ensemble + sparse + cross_entropy(logits.colbert, targets)) / 4
    if not self_distill:
        return loss
    teacher = logits.ensemble.detach().softmax(dim=-1)
    sparse = SPARSE_IN_LOSS * cross_entropy(logits.sparse, teacher)
    taught = (cross_entropy(logits.dense, teacher) + sparse + cross_entropy(logits.colbert, teacher)) / 3
    return (loss + taught) / 2


def chance_loss(passages: int) -> float:
    """``unified_loss`` with self-distillation of a model that scores this many passages equally."""
    return ((3 + SPARSE_IN_LOSS) / 4 + (2 + SPARSE_IN_LOSS) / 3) / 2 * math.log(passages)
