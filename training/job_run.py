"""One worker's share of a job, from the spec to the published model; knows no Ray, so it also runs in a test."""

from __future__ import annotations

import gc
from pathlib import Path

import torch
from torch import distributed

from serve_app.jobs.training_spec import TrainingSpec
from serve_app.models.openmp import threads_for
from training.export import stage
from training.job import load_job
from training.loss_curve import draw_loss
from training.measurement import find_warnings, measure_base, measure_result
from training.probe import probe_of
from training.publication import publish
from training.reporting import Reporter
from training.trainer import checkpoints
from training.trainer.contrastive_trainer import OnCheckpoint
from training.trainer.training_steps import run_steps
from training.verification import load_result


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
        reporter: Receives the job's updates; disabled on all workers but the first.
        rank: Of this worker.
        world_size: Workers; above 1 torch's process group exists.
        gpu: Index of this worker's GPU, if it has one.
        on_checkpoint: Called on every worker after a checkpoint, with the step and the latest loss.

    Returns:
        The published folder; None on all workers but the first.

    Raises:
        TrainingError: The job cannot succeed.
        ModelLoadError: The base or the device cannot be used.
    """
    torch.set_num_threads(threads_for(spec.cpus_per_worker, spec.num_workers))
    job = load_job(spec, job_dir, world_size=world_size, gpu=gpu)
    job.checkpoints.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        reporter.check_ownership()  # reading the examples may have taken long
        checkpoints.remove_incomplete(job.checkpoints)
    before = measure_base(job, reporter) if rank == 0 else {}
    if world_size > 1:
        distributed.barrier()
    trained = run_steps(job, reporter, on_checkpoint)
    if rank != 0:
        return None
    draw_loss(job_dir, job.title)
    reporter.check_ownership()  # staging removes what another attempt has staged
    staged = stage(trained.model, trained.heads, spec, job.source)
    probe, chance_loss = probe_of(trained.model, trained.heads, job.source, job.compute), trained.chance_loss
    del trained
    gc.collect()  # before the result is loaded
    reporter.heartbeat()
    encode = load_result(staged, probe, spec, job.source, job.compute, reporter.heartbeat)
    metrics = {"before": before, "after": measure_result(job, encode, reporter)}
    warnings = find_warnings(job, encode, chance_loss, reporter)
    reporter.check_ownership()
    counts = job.split.pair_counts | job.split.group_counts
    folder = publish(staged, spec, metrics, counts, job_dir=job_dir, warnings=warnings)
    reporter.published(model_name=spec.model_name, folder=folder)
    return folder
