"""Retries of a job's lost attempts: few for failures of the job itself, many for restarts of the cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace

from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.job_updates import UpdateType


@dataclass(frozen=True)
class RetryPolicy:
    """Lost attempts in a row, without a new checkpoint between them, after which a job fails.

    Attributes:
        failed_attempts: Attempts whose process died or stopped reporting while the cluster ran.
        interruptions: Attempts that were under way when the whole cluster was restarted. Far more: a job rarely causes
            that, but one that crashes the cluster each time must not continue for ever.
    """

    failed_attempts: int = 3
    interruptions: int = 10


def count_loss(record: JobRecord, loss: UpdateType) -> JobRecord:
    """The record with one more lost attempt; an interrupted attempt counts only if it was running."""
    if loss is UpdateType.LOST:
        return replace(record, failed_attempts=record.failed_attempts + 1)
    if record.status is JobStatus.RUNNING:
        return replace(record, interruptions=record.interruptions + 1)
    return record


def reset_losses(record: JobRecord) -> JobRecord:
    """The record without lost attempts: the job has reached a new checkpoint."""
    return replace(record, failed_attempts=0, interruptions=0)


def final_failure(record: JobRecord, loss: UpdateType, policy: RetryPolicy) -> str | None:
    """The end of a sentence about a job that fails with this loss; None if it is restarted."""
    after = count_loss(record, loss)
    if after.failed_attempts >= policy.failed_attempts:
        return f"and so {after.failed_attempts} attempts in a row were lost without reaching a new checkpoint"
    if after.interruptions >= policy.interruptions:
        return f"{after.interruptions} times in a row while this job was under way and had reached no new checkpoint"
    return None
