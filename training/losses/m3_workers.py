"""Exchanges between workers that train one BGE-M3, beyond those of torch's DDP: negatives and head gradients."""

from __future__ import annotations

import torch
from sentence_transformers.util import all_gather_padded, all_gather_with_grad
from torch import distributed, nn

from training.losses.m3_heads import M3Vectors


def world_size() -> int:
    """Workers of this training; 1 where it is not distributed."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gather_passages(passages: M3Vectors) -> tuple[M3Vectors, int]:
    """The passages of all workers, by rank, and the row at which this worker's begin.

    Gradients of other workers' losses come back to this worker's passages. Every worker must have as many passages
    as the others; lengths may differ.
    """
    if world_size() == 1:
        return passages, 0
    tokens = torch.cat([passages.colbert, passages.weights[..., None]], dim=-1)  # one exchange for both
    tokens, mask = all_gather_padded(tokens, passages.mask, with_grad=True)
    ids, _ = all_gather_padded(passages.ids[..., None], passages.mask)
    everyone = M3Vectors(
        dense=all_gather_with_grad(passages.dense),
        colbert=tokens[..., :-1],
        weights=tokens[..., -1],
        ids=ids.squeeze(-1),
        mask=mask,
    )
    return everyone, distributed.get_rank() * len(passages.mask)


def average_gradients(module: nn.Module) -> None:
    """Gives every worker the mean of all workers' gradients, as DDP does for what it wraps.

    What was averaged before is the same everywhere, so gradients that accumulate over several backward passes may
    be averaged after each.
    """
    workers = world_size()
    if workers == 1:
        return
    for parameter in module.parameters():
        if parameter.grad is not None:
            distributed.all_reduce(parameter.grad)
            parameter.grad /= workers
