"""The state machine of a job: one table of transitions, and a fold over updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from serve_app.domain.errors import IllegalTransitionError
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.job_reducers import REDUCERS
from serve_app.jobs.job_updates import TRAINING_UPDATES, JobUpdate, UpdateType

_ACTIVITY = dict.fromkeys(
    (
        UpdateType.STARTED,
        UpdateType.PROGRESS,
        UpdateType.CHECKPOINT,
        UpdateType.METRICS,
        UpdateType.EVENT,
        UpdateType.PUBLISHED,
    ),
    JobStatus.RUNNING,
)
_ENDS = {
    UpdateType.FAILED: JobStatus.FAILED,
    UpdateType.CANCELLED: JobStatus.CANCELLED,
    UpdateType.DONE: JobStatus.COMPLETED,  # from pending, too: a resumed job may find its result published already
}
TRANSITIONS: Mapping[JobStatus, Mapping[UpdateType, JobStatus]] = MappingProxyType(
    {
        JobStatus.PENDING: {
            UpdateType.SUBMITTED: JobStatus.PENDING,
            UpdateType.WAITING: JobStatus.PENDING,
            UpdateType.STOPPING: JobStatus.PENDING,
            UpdateType.LOST: JobStatus.PENDING,
            UpdateType.INTERRUPTED: JobStatus.PENDING,
            **_ACTIVITY,
            **_ENDS,
        },
        JobStatus.RUNNING: {
            UpdateType.STOPPING: JobStatus.RUNNING,
            UpdateType.LOST: JobStatus.PENDING,
            UpdateType.INTERRUPTED: JobStatus.PENDING,
            **_ACTIVITY,
            **_ENDS,
        },
        JobStatus.COMPLETED: {},
        JobStatus.FAILED: {},
        JobStatus.CANCELLED: {},
    }
)


def advance(record: JobRecord, update: JobUpdate) -> JobRecord:
    """Folds one update into a record; pure.

    Raises:
        IllegalTransitionError: The table has no such transition; above all, none leaves a terminal status.
    """
    status = TRANSITIONS[record.status].get(update.type)
    if status is None:
        raise IllegalTransitionError(f"the job is {record.status}; {update.type.value!r} is not possible any more")
    if status is JobStatus.RUNNING and record.submission_id is None:
        status = JobStatus.PENDING  # a late update of a lost attempt: nothing runs
    changed = REDUCERS[update.type](record, update)
    changed = replace(changed, status=status, progress=max(record.progress, changed.progress))
    if update.type in TRAINING_UPDATES:
        changed = replace(changed, last_heartbeat_at=update.time)
    if status is JobStatus.RUNNING:
        changed = replace(changed, pending_reason=None, started_at=changed.started_at or update.time)
    if status.is_terminal:
        changed = replace(changed, pending_reason=None, stopping=None, seconds_left=None, ended_at=update.time)
    return changed
