"""A job as its workers see it: spec, base model, examples, device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from serve_app.domain.profiles import Profile
from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.training_spec import TrainingSpec
from serve_app.models.model_source import ModelSource, describe, find_model
from training.data.splitting import Split, load_split
from training.evaluation.held_out import HeldOut, held_out_task
from training.trainer.trainable_model import Compute, choose_compute


@dataclass(frozen=True)
class Job:
    """Everything that is known before the model is loaded; the same on every worker.

    Attributes:
        spec: The job.
        folder: The job's folder.
        source: The base model.
        compute: Device and dtype of this worker.
        split: Training and held-out examples.
        task: Retrieval over the held-out examples; None if there are none.
        world_size: Workers.
    """

    spec: TrainingSpec
    folder: Path
    source: ModelSource
    compute: Compute
    split: Split
    task: HeldOut | None
    world_size: int

    @property
    def profile(self) -> Profile:
        """Family of base and result."""
        return self.source.profile

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return JobFolder(self.folder).checkpoints

    @property
    def title(self) -> str:
        """Result, kind and base in a phrase."""
        return f"{self.spec.model_name}: {self.spec.kind.value} fine-tune of {self.spec.base_model}"


def load_job(spec: TrainingSpec, job_dir: Path, *, world_size: int = 1, gpu: int = 0) -> Job:
    """Reads the base's description and the examples.

    Raises:
        TrainingError: The examples cannot be trained on.
        ModelLoadError: The base or the device cannot be used.
    """
    folder = Path(spec.base_folder)
    if folder.is_dir():
        source = describe(spec.base_model, folder, family=spec.family)
    else:  # another machine found the base in its own downloads
        source = find_model(spec.base_model, Path(spec.models_dir), family=spec.family)
    split = load_split(job_dir, source.profile, fraction=spec.eval_fraction, seed=spec.seed)
    return Job(
        spec=spec,
        folder=job_dir,
        source=source,
        compute=choose_compute(spec, gpu=gpu),
        split=split,
        task=held_out_task(split, source.profile, seed=spec.seed),
        world_size=world_size,
    )
