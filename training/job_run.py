"""One worker's share of a job, from the spec to the published model; knows no Ray, so it also runs in a test."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_app.domain.profiles import Profile
from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.training_spec import LoraSettings, TrainingKind, TrainingSpec
from serve_app.models.openmp import threads_for, wait_passively

wait_passively()

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch import distributed
from transformers import set_seed

from serve_app.models.model_source import ModelSource, describe, find_model
from training.data.batch_size import choose_batches
from training.data.examples import columns, pairs
from training.data.split_record import SPLIT_ANEW, record_split
from training.data.splitting import Split, load_split
from training.evaluation.collapse import check_collapse, describe_standing_loss, loss_of_guessing, sample_passages
from training.evaluation.held_out import Encode, HeldOut, evaluate, held_out_task
from training.export import stage
from training.loss_curve import draw_loss
from training.losses.contrastive import Heads, build_loss
from training.probe import probe_of
from training.publication import publish
from training.reporting import Reporter, read_lines
from training.trainer import checkpoints, lora
from training.trainer.contrastive_trainer import ContrastiveTrainer, OnCheckpoint, training_arguments
from training.trainer.trainable_model import Compute, build_model, choose_compute, freeze_embeddings
from training.verification import load_base, load_result


@dataclass(frozen=True)
class Job:
    """What a worker knows before its model is loaded; the same on every worker.

    Attributes:
        spec: The job.
        folder: The job's folder.
        source: The base model.
        place: Where this worker computes.
        parts: Training and held-out examples.
        task: Retrieval over the held-out ones, if there are any.
        world_size: Workers.
    """

    spec: TrainingSpec
    folder: Path
    source: ModelSource
    place: Compute
    parts: Split
    task: HeldOut | None
    world_size: int

    @property
    def profile(self) -> Profile:
        """Of base and result."""
        return self.source.profile

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return JobFolder(self.folder).checkpoints


def prepare(spec: TrainingSpec, job_dir: Path, *, world_size: int = 1, gpu: int = 0) -> Job:
    """Reads base and examples.

    Raises:
        TrainingError: The examples are no good.
        ModelLoadError: The base is.
    """
    folder = Path(spec.base_folder)
    if folder.is_dir():
        source = describe(spec.base_model, folder, family=spec.family)
    else:  # it was found by another machine, whose downloads are not ours
        source = find_model(spec.base_model, Path(spec.models_dir), family=spec.family)
    parts = load_split(job_dir, source.profile, fraction=spec.eval_fraction, seed=spec.seed)
    return Job(
        spec=spec,
        folder=job_dir,
        source=source,
        place=choose_compute(spec, gpu=gpu),
        parts=parts,
        task=held_out_task(parts, source.profile, seed=spec.seed),
        world_size=world_size,
    )


def train(
    spec: TrainingSpec,
    job_dir: Path,
    reporter: Reporter,
    *,
    rank: int = 0,
    world_size: int = 1,
    gpu: int = 0,
    on_checkpoint: OnCheckpoint = lambda step, loss: None,
) -> Path | None:
    """Trains, evaluates before and after, and publishes; resumes where an earlier call on the folder was cut off.

    Args:
        spec: The job.
        job_dir: Its folder.
        reporter: Is told what happens; one that says nothing on all workers but the first.
        rank: Of this worker.
        world_size: Workers; above 1 torch's process group is there.
        gpu: Index of this worker's GPU, if it has one.
        on_checkpoint: Called on every worker after a checkpoint, with the step and the latest loss.

    Returns:
        The published folder; None on all workers but the first.

    Raises:
        TrainingError: The job can not succeed.
        ModelLoadError: The base or the device can not be used.
    """
    torch.set_num_threads(threads_for(spec.cpus_per_worker, spec.num_workers))
    job = prepare(spec, job_dir, world_size=world_size, gpu=gpu)
    job.checkpoints.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        reporter.check_ownership()  # reading the examples may have taken long
        checkpoints.remove_incomplete(job.checkpoints)
    before = _measure_base(job, reporter) if rank == 0 else {}
    if world_size > 1:
        distributed.barrier()
    model, heads, guessing = _take_steps(job, reporter, on_checkpoint)
    if rank != 0:
        return None
    draw_loss(job_dir, f"{spec.model_name}: {spec.kind.value} fine-tune of {spec.base_model}")
    reporter.check_ownership()  # staging removes what another attempt has staged
    staged = stage(model, heads, spec, job.source)
    trained = probe_of(model, heads, job.source, job.place)
    del model, heads
    gc.collect()  # before the result is loaded
    reporter.moves()
    encode = load_result(staged, trained, spec, job.source, job.place, reporter.moves)
    after = {}
    if job.task is not None:
        reporter.event("info", "measuring the result")
        after = evaluate(job.task, encode, device=job.place.device)
        reporter.metrics("after", after)
    warnings = _warn(job, encode, guessing, reporter)
    reporter.check_ownership()
    folder = publish(
        staged, spec, {"before": before, "after": after}, _counts(job.parts) | _groups(job.parts), job_dir=job_dir,
        warnings=warnings,
    )  # fmt: skip
    reporter.published(model_name=spec.model_name, folder=folder)
    return folder


def _measure_base(job: Job, reporter: Reporter) -> dict[str, float]:
    """The base's metrics, from an earlier run of the job if there was one."""
    reported = read_lines(job.folder)
    if not any(line.get("type") == "started" for line in reported):  # a resumed job has said so before
        for notice in job.parts.notices:
            reporter.event(*notice)
    if job.task is None:
        reporter.event("info", "nothing is held out, so the result will not be measured")
        return {}
    is_same_split = record_split(job.folder, job.parts)
    for line in reversed(reported):
        if line.get("type") == "metrics" and line.get("when") == "before":
            if is_same_split:
                return {name: value for name, value in line.items() if name not in ("time", "type", "when")}
            reporter.lasting_warning(SPLIT_ANEW)
            break
    reporter.event("info", "measuring the base")
    base = load_base(job.spec, job.source, job.place, reporter.moves)
    metrics = evaluate(job.task, base, device=job.place.device)
    reporter.metrics("before", metrics)
    return metrics


def _warn(job: Job, encode: Encode, guessing: float, reporter: Reporter) -> list[str]:
    """What a user of the result must know.

    Raises:
        TrainingError: The result has collapsed, and nothing was measured.
    """
    passages = sample_passages(job.parts.train, job.profile, seed=job.spec.seed)
    found = [
        check_collapse(encode, passages, measured=job.task is not None),
        describe_standing_loss(read_lines(job.folder), guessing),
    ]
    warnings = [warning for warning in found if warning is not None]
    for warning in warnings:
        reporter.lasting_warning(warning)
    return warnings


def _take_steps(
    job: Job, reporter: Reporter, on_checkpoint: OnCheckpoint
) -> tuple[SentenceTransformer, Heads | None, float]:
    """The trained model, its heads, and the loss that it would have by guessing."""
    spec = job.spec
    rows = columns(job.parts.train, job.profile, seed=spec.seed)
    batch_size, batches = choose_batches(rows, spec, reporter, world_size=job.world_size)
    total_steps = spec.epochs * batches
    set_seed(spec.seed)  # of the adapter's first values
    model = _build_trainable(job)
    model.register_forward_hook(lambda *_: reporter.moves())  # runs for each mini-batch
    mini_batch_size = checkpoints.recall_mini_batch_size(job.checkpoints, spec.mini_batch_size)
    if mini_batch_size < spec.mini_batch_size:  # the worker whose memory ran out may have been one that says nothing
        reporter.event("info", f"going on with {mini_batch_size} texts at a time: memory ran out with more")
    loss, heads = build_loss(model, spec, mini_batch_size=mini_batch_size, world_size=job.world_size)
    trainer = ContrastiveTrainer(
        model=model,
        args=training_arguments(
            spec, place=job.place, batch_size=batch_size, folder=job.checkpoints, has_heads=heads is not None
        ),
        train_dataset=Dataset.from_dict(rows),
        loss=loss,
        warmup_ratio=spec.warmup_ratio,
        reporter=reporter,
        on_checkpoint=_drawing(job, on_checkpoint, draws=reporter.speaks),
    )
    newest = checkpoints.newest_complete(job.checkpoints)
    reporter.started(
        total_steps=total_steps, **_counts(job.parts), device=str(job.place.device),
        dtype=job.place.dtype_name, world_size=job.world_size,
        resumed_step=checkpoints.step_of(newest),
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    candidates = batch_size * (len(rows) - 1)
    return model, heads, loss_of_guessing(candidates, has_heads=heads is not None)


def _build_trainable(job: Job) -> SentenceTransformer:
    spec, quantised = job.spec, job.spec.kind is TrainingKind.QLORA
    options: dict[str, Any] = lora.loading_options(job.source, job.place.device) if quantised else {}
    model = build_model(job.source, job.place, max_tokens=spec.max_seq_length, **options)
    if quantised:
        lora.keep_layers_trainable(model)
    if spec.kind is not TrainingKind.FULL:
        lora.add_lora(model, spec.lora or LoraSettings())
    elif spec.freeze_embeddings:
        freeze_embeddings(model)
    return model


def _drawing(job: Job, on_checkpoint: OnCheckpoint, *, draws: bool) -> OnCheckpoint:
    def both(step: int, loss: float) -> None:
        if draws:
            draw_loss(job.folder, f"{job.spec.model_name}: {job.spec.kind.value} fine-tune of {job.spec.base_model}")
        on_checkpoint(step, loss)

    return both


def _counts(parts: Split) -> dict[str, int]:
    return {"train_pairs": pairs(parts.train), "eval_pairs": pairs(parts.held_out)}


def _groups(parts: Split) -> dict[str, int]:
    return {"train_groups": parts.train_groups, "eval_groups": parts.held_out_groups}
