"""Settings of fine-tuning: the folder of jobs, their resources, and defaults of hyper-parameters."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from serve_app.domain import hyperparameters as defaults
from serve_app.domain.request_limits import FineTuneLimits
from serve_app.settings.frozen_settings import Auto, FrozenSettings


class TrainingSettings(FrozenSettings):
    """Everything about fine-tuning that an operator can set.

    Attributes:
        jobs_dir: Folder of the job folders: data, checkpoints, logs. All nodes must share it, as they do
            ``models_dir``; relative to the working directory of the service.
        max_concurrent_jobs: Jobs that train at once; the others wait. Serving is never stopped for them, so they
            need resources that serving does not reserve.
        max_waiting_jobs: Jobs that have not ended, beyond which a new one is answered 429.
        num_workers: Ray Train workers of a job.
        cpus_per_worker: CPUs reserved for each.
        gpus_per_worker: GPUs reserved for each, at most one: more workers train on more GPUs. ``auto``: ``gpu_share``
            if the cluster has GPUs, else none; several workers take a whole one each. A share that lets two workers
            use one GPU is refused, because NCCL does not work there.
        gpu_share: GPUs of a worker with ``gpus_per_worker: auto``. A job waits until serving leaves that much. The
            share does not limit the time and memory that a training uses of its GPU.
        device: ``auto`` is the GPU if the worker has one.
        max_seq_length: Tokens of a text that are trained on and measured with, unless the request says another number.
            Time grows with it; most queries and passages are shorter.
        mini_batch_size: Texts of one forward. It bounds memory and does not change the result.
        gradient_checkpointing: Takes less memory, for about a third more time.
        checkpoint_steps: Steps between two checkpoints; there is also one about every minute. A crash costs the steps
            since the last one.
        seed: Seed of the split, the order and the adapters, unless the request says another.
        env: Environment variables of the training processes.
        limits: Bounds of a request for a fine-tune.
    """

    jobs_dir: Path = Field(default=Path("jobs"), validate_default=True)
    max_concurrent_jobs: int = Field(default=1, ge=1)
    max_waiting_jobs: int = Field(default=100, ge=1)
    num_workers: int = Field(default=1, ge=1)
    cpus_per_worker: float = Field(default=0.5, gt=0)
    gpus_per_worker: Annotated[float, Field(ge=0, le=1)] | Auto = "auto"
    gpu_share: float = Field(default=0.25, gt=0, le=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_seq_length: int = Field(default=defaults.MAX_SEQ_LENGTH, ge=8)
    mini_batch_size: int = Field(default=defaults.MINI_BATCH_SIZE, ge=1)
    gradient_checkpointing: bool = False
    checkpoint_steps: int = Field(default=defaults.CHECKPOINT_STEPS, ge=1)
    seed: int = Field(default=defaults.SEED, ge=0)
    env: dict[str, str] = Field(default={})
    limits: FineTuneLimits = FineTuneLimits()

    @model_validator(mode="after")
    def _require_gpu_for_each_worker(self) -> Self:
        share = 0.0 if self.gpus_per_worker == "auto" or self.device == "cpu" else self.gpus_per_worker
        if self.num_workers > 1 and 0 < share <= 0.5:
            raise ValueError(
                f"gpus_per_worker: {share:g} lets two workers share a GPU, where NCCL does not work; use 1"
            )
        return self

    @field_validator("jobs_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()
