"""The settings of a job as arguments of sentence-transformers' trainer, and its learning-rate schedule."""

from __future__ import annotations

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformerTrainingArguments

from serve_app.jobs.training_spec import TrainingKind, TrainingSpec, default_learning_rate
from training.data.batch_sampler import ConflictFreeBatchSampler
from training.trainer.trainable_model import Compute

_HEADS = r"^heads\."  # names of a loss' own layers among its parameters


def training_arguments(
    spec: TrainingSpec, *, compute: Compute, batch_size: int, folder: Path, has_heads: bool = False
) -> SentenceTransformerTrainingArguments:
    """The job's settings as arguments of the trainer.

    Args:
        spec: The job.
        compute: Device and dtype.
        batch_size: Pairs of a batch, of all workers together.
        folder: For checkpoints.
        has_heads: Whether the loss has heads of its own. They are pretrained and trained in full, so beside adapters,
            which take a much higher rate, they have that of a full fine-tune.
    """
    heads_rate = spec.learning_rate * default_learning_rate(TrainingKind.FULL) / default_learning_rate(spec.kind)
    return SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=spec.epochs,
        per_device_train_batch_size=batch_size,
        # One batch is drawn and cut into the workers' parts. Each drawing its own would take the same passage twice.
        accelerator_config={"split_batches": True, "even_batches": False},
        batch_sampler=ConflictFreeBatchSampler,
        dataloader_drop_last=True,
        learning_rate=spec.learning_rate,
        learning_rate_mapping={_HEADS: heads_rate} if has_heads else {},
        optim="adamw_torch",
        max_grad_norm=spec.max_grad_norm,
        seed=spec.seed,
        bf16=compute.dtype is torch.bfloat16,
        use_cpu=compute.device.type == "cpu",
        activation_checkpointing=spec.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        ddp_find_unused_parameters=False,
        save_strategy="steps",
        save_steps=spec.checkpoint_steps,
        save_total_limit=2,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would hide that a training has diverged
        report_to="none",
        disable_tqdm=True,
    )


def rate_factor(step: int, *, total_steps: int, warmup_ratio: float) -> float:
    """The share of the peak learning rate in a step, counted from 0: linear warm-up and decay, never 0.

    One step has the peak. The usual schedule starts with a step at rate 0, so a job of one step would change nothing.
    """
    warmup = min(round(warmup_ratio * total_steps), total_steps - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return max(total_steps - step, 0) / (total_steps - warmup)
