"""Retrieval quality of a job's base and result, and warnings about the result."""

from __future__ import annotations

from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.job_folder_readers import read_all_updates
from serve_app.jobs.job_updates import UpdateType
from training.data.split_record import SPLIT_CHANGED, record_split
from training.evaluation.collapse import check_collapse, describe_stalled_loss, sample_passages
from training.evaluation.held_out import Encode, evaluate
from training.job import Job
from training.reporting import Reporter
from training.verification import load_base


def measure_base(job: Job, reporter: Reporter) -> dict[str, float]:
    """The base's metrics, from an earlier attempt if it measured on the same split; empty if nothing is held out."""
    reported = read_all_updates(JobFolder(job.folder))
    if not any(update.type is UpdateType.STARTED for update in reported):  # an earlier attempt has reported them
        for notice in job.split.notices:
            reporter.event(*notice)
    if job.task is None:
        reporter.event("info", "nothing is held out, so the result will not be measured")
        return {}
    is_same_split = record_split(job.folder, job.split)
    for update in reversed(reported):
        if update.type is UpdateType.METRICS and update.text("when") == "before":
            if is_same_split:
                return update.measures()
            reporter.lasting_warning(SPLIT_CHANGED)
            break
    reporter.event("info", "measuring the base")
    return _measure(job, load_base(job.spec, job.source, job.compute, reporter.heartbeat), "before", reporter)


def measure_result(job: Job, encode: Encode, reporter: Reporter) -> dict[str, float]:
    """The result's metrics; empty if nothing is held out."""
    if job.task is None:
        return {}
    reporter.event("info", "measuring the result")
    return _measure(job, encode, "after", reporter)


def _measure(job: Job, encode: Encode, when: str, reporter: Reporter) -> dict[str, float]:
    assert job.task is not None
    metrics = evaluate(job.task, encode, device=job.compute.device)
    reporter.metrics(when, metrics)
    return metrics


def find_warnings(job: Job, encode: Encode, chance_loss: float, reporter: Reporter) -> list[str]:
    """Reports and returns what a user of the result must know: a collapsed model, a loss that never fell.

    Args:
        job: The job.
        encode: The result.
        chance_loss: The loss of a model that scores all passages of a batch equally.
        reporter: Of the job.

    Raises:
        TrainingError: The result has collapsed, and nothing was measured.
    """
    passages = sample_passages(job.split.train, job.profile, seed=job.spec.seed)
    found = [
        check_collapse(encode, passages, measured=job.task is not None),
        describe_stalled_loss(read_all_updates(JobFolder(job.folder)), chance_loss),
    ]
    warnings = [warning for warning in found if warning is not None]
    for warning in warnings:
        reporter.lasting_warning(warning)
    return warnings
