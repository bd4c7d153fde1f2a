"""From a job to a trained model: batches, model, loss, steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from transformers import set_seed

from serve_app.jobs.training_spec import LoraSettings, TrainingKind
from training.data.batch_size import choose_batches
from training.data.examples import columns
from training.job import Job
from training.loss_curve import draw_loss
from training.losses.loss_registry import build_objective
from training.losses.objective import Heads
from training.reporting import Reporter
from training.trainer import checkpoints, lora
from training.trainer.contrastive_trainer import ContrastiveTrainer, OnCheckpoint
from training.trainer.trainable_model import build_model, freeze_embeddings
from training.trainer.training_arguments import training_arguments


@dataclass(frozen=True)
class TrainedModel:
    """The outcome of the steps, still in memory.

    Attributes:
        model: The encoder with its adapters.
        heads: Layers beside it that were trained.
        chance_loss: The loss of a model that scores all passages of a batch equally.
    """

    model: SentenceTransformer
    heads: Heads | None
    chance_loss: float


def run_steps(job: Job, reporter: Reporter, on_checkpoint: OnCheckpoint) -> TrainedModel:
    """Takes the steps of a job, from its newest checkpoint on."""
    spec = job.spec
    rows = columns(job.split.train, job.profile, seed=spec.seed)
    batch_size, batches = choose_batches(rows, spec, reporter, world_size=job.world_size)
    set_seed(spec.seed)  # of the adapter's first values
    model = _build_trainable(job)
    model.register_forward_hook(lambda *_: reporter.heartbeat())  # runs for each mini-batch
    mini_batch_size = checkpoints.recall_mini_batch_size(job.checkpoints, spec.mini_batch_size)
    if mini_batch_size < spec.mini_batch_size:  # the worker whose memory ran out may not have been the reporting one
        reporter.event("info", f"continuing with {mini_batch_size} texts at a time: memory ran out with more")
    objective = build_objective(model, spec, mini_batch_size=mini_batch_size, world_size=job.world_size)
    has_heads = objective.heads is not None
    trainer = ContrastiveTrainer(
        model=model,
        args=training_arguments(
            spec, compute=job.compute, batch_size=batch_size, folder=job.checkpoints, has_heads=has_heads
        ),
        train_dataset=Dataset.from_dict(rows),
        loss=objective.loss,
        warmup_ratio=spec.warmup_ratio,
        reporter=reporter,
        on_checkpoint=_drawing(job, on_checkpoint) if reporter.enabled else on_checkpoint,
    )
    newest = checkpoints.newest_complete(job.checkpoints)
    reporter.started(
        total_steps=spec.epochs * batches, **job.split.pair_counts, device=str(job.compute.device),
        dtype=job.compute.dtype_name, world_size=job.world_size, resumed_step=checkpoints.step_of(newest),
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    return TrainedModel(model, objective.heads, objective.chance_loss(batch_size * (len(rows) - 1)))


def _build_trainable(job: Job) -> SentenceTransformer:
    spec, quantised = job.spec, job.spec.kind is TrainingKind.QLORA
    options: dict[str, Any] = lora.loading_options(job.source, job.compute.device) if quantised else {}
    model = build_model(job.source, job.compute, max_tokens=spec.max_seq_length, **options)
    if quantised:
        lora.keep_layers_trainable(model)
    if spec.kind is not TrainingKind.FULL:
        lora.add_lora(model, spec.lora or LoraSettings())
    elif spec.freeze_embeddings:
        freeze_embeddings(model)
    return model


def _drawing(job: Job, on_checkpoint: OnCheckpoint) -> OnCheckpoint:
    def both(step: int, loss: float) -> None:
        draw_loss(job.folder, job.title)
        on_checkpoint(step, loss)

    return both
