"""The loss of a family: InfoNCE over a real batch, in bounded memory.

A contrastive loss takes its negatives from the batch, so the batch must be large and can not be made of accumulated
small ones. GradCache (Gao et al., 2021, https://arxiv.org/abs/2101.06983) computes the vectors of a batch in
mini-batches, the loss over all of them, and the mini-batches' gradients in a second pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from serve_app.domain.profiles import PROFILES, Capability
from serve_app.jobs.training_spec import TrainingSpec
from serve_app.models.openmp import wait_passively

wait_passively()

from sentence_transformers import SentenceTransformer
from torch import nn


class Heads(Protocol):
    """Layers beside the encoder that are trained and saved with it."""

    def save(self, folder: Path) -> None:
        """Writes them as the family's model folders have them."""


def build_loss(
    model: SentenceTransformer, spec: TrainingSpec, *, mini_batch_size: int, world_size: int
) -> tuple[nn.Module, Heads | None]:
    """The loss for the job's family and, for a family with several representations, the heads that it trains.

    Args:
        model: Computes the vectors.
        spec: The job.
        mini_batch_size: Texts of one forward; does not change the gradient.
        world_size: With more than one worker each one's negatives come from all of them.

    Raises:
        ModelLoadError: The base lacks its heads.
    """
    if Capability.COLBERT in PROFILES[spec.family].capabilities:
        from training.losses.cached_m3_loss import CachedM3Loss, M3Heads

        heads = M3Heads.load(Path(spec.base_folder))
        loss = CachedM3Loss(model, heads, temperature=spec.temperature, mini_batch_size=mini_batch_size)
        return loss, heads
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    return CachedMultipleNegativesRankingLoss(
        model,
        scale=1.0 / spec.temperature,
        mini_batch_size=mini_batch_size,
        gather_across_devices=world_size > 1,
    ), None
