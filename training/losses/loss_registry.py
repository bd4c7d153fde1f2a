"""The training loss of each model family. To add one, write a module with a ``build`` and list it here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from sentence_transformers import SentenceTransformer

from serve_app.domain.profiles import BGE_M3, PROFILES, Capability
from serve_app.jobs.training_spec import TrainingSpec
from training.losses import cached_m3_loss, dense_loss
from training.losses.objective import Objective
from training.training_errors import TrainingError


class BuildObjective(Protocol):
    """Makes the loss of a job."""

    def __call__(
        self, model: SentenceTransformer, spec: TrainingSpec, *, mini_batch_size: int, world_size: int
    ) -> Objective:
        """See ``build_objective``."""
        ...


LOSSES: Mapping[str, BuildObjective] = {BGE_M3.family: cached_m3_loss.build}
"""By family; a family of dense vectors alone that is not listed has ``dense_loss``."""


def build_objective(
    model: SentenceTransformer, spec: TrainingSpec, *, mini_batch_size: int, world_size: int
) -> Objective:
    """The loss of the job's family.

    Args:
        model: Computes the vectors.
        spec: The job.
        mini_batch_size: Texts of one forward; does not change the gradient.
        world_size: With more than one worker each one's negatives come from all of them.

    Raises:
        ModelLoadError: The base lacks its heads.
        TrainingError: No loss trains all representations of the family.
    """
    build = LOSSES.get(spec.family)
    if build is None:
        if PROFILES[spec.family].capabilities != {Capability.DENSE}:
            raise TrainingError(
                f"models of the family {spec.family} cannot be fine-tuned: no loss is registered for it"
            )
        build = dense_loss.build
    return build(model, spec, mini_batch_size=mini_batch_size, world_size=world_size)
