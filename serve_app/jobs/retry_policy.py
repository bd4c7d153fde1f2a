"""What a lost attempt costs its job: what the job may have done itself counts soon, what was done to it hardly."""

from __future__ import annotations

from dataclasses import dataclass, replace

from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.job_updates import UpdateType


@dataclass(frozen=True)
class RetryPolicy:
    """How much may be lost in a row, that is without reaching a new checkpoint, before a job is given up.

    Attributes:
        failed_attempts: Attempts whose process died or fell silent while the cluster went on.
        interruptions: Attempts that were under way when the whole cluster was restarted. Far more: that is hardly ever
            a job's fault, but one that brings the cluster down each time must not do so for ever.
    """

    failed_attempts: int = 3
    interruptions: int = 10


def count_loss(record: JobRecord, loss: UpdateType) -> JobRecord:
    """The record with one more loss: ``lost``, or ``interrupted``, which an attempt that only waited is spared."""
    if loss is UpdateType.LOST:
        return replace(record, failed_attempts=record.failed_attempts + 1)
    if record.status is JobStatus.RUNNING:
        return replace(record, interruptions=record.interruptions + 1)
    return record


def reset_losses(record: JobRecord) -> JobRecord:
    """The record of a job that has got further."""
    return replace(record, failed_attempts=0, interruptions=0)


def final_failure(record: JobRecord, loss: UpdateType, policy: RetryPolicy) -> str | None:
    """Why a job that suffers a loss now is not started again, as the end of a sentence; None if it is."""
    after = count_loss(record, loss)
    if after.failed_attempts >= policy.failed_attempts:
        return f"and so {after.failed_attempts} attempts in a row were lost without reaching a new checkpoint"
    if after.interruptions >= policy.interruptions:
        return f"{after.interruptions} times in a row while this job was under way and had reached no new checkpoint"
    return None
