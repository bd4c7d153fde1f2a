"""The loss of dense vectors: InfoNCE over a real batch, in bounded memory.

A contrastive loss takes its negatives from the batch, so the batch must be large and cannot be made of accumulated
small ones. GradCache (Gao et al., 2021, https://arxiv.org/abs/2101.06983) computes the vectors of a batch in
mini-batches, the loss over all of them, and the mini-batches' gradients in a second pass.
"""

from __future__ import annotations

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

from serve_app.jobs.training_spec import TrainingSpec
from training.losses.objective import Objective


def build(model: SentenceTransformer, spec: TrainingSpec, *, mini_batch_size: int, world_size: int) -> Objective:
    """The loss of a job; see ``build_objective``."""
    loss = CachedMultipleNegativesRankingLoss(
        model,
        scale=1.0 / spec.temperature,
        mini_batch_size=mini_batch_size,
        gather_across_devices=world_size > 1,
    )
    return Objective(loss)
