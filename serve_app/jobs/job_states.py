"""From which state of a job an event leads where: a fold over events, with one table as the whole law."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from serve_app.domain.errors import IllegalTransitionError
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.job_reducers import EFFECTS
from serve_app.jobs.job_updates import OF_THE_TRAINING, EventType, JobUpdate

_SIGNS_OF_LIFE = dict.fromkeys(
    (
        EventType.STARTED,
        EventType.PROGRESS,
        EventType.CHECKPOINT,
        EventType.METRICS,
        EventType.NOTE,
        EventType.PUBLISHED,
    ),
    JobStatus.RUNNING,
)
_ENDS = {
    EventType.FAILED: JobStatus.FAILED,
    EventType.CANCELLED: JobStatus.CANCELLED,
    EventType.DONE: JobStatus.COMPLETED,  # from pending, too: a resumed job may find its result published already
}
TRANSITIONS: Mapping[JobStatus, Mapping[EventType, JobStatus]] = MappingProxyType(
    {
        JobStatus.PENDING: {
            EventType.SUBMITTED: JobStatus.PENDING,
            EventType.WAITING: JobStatus.PENDING,
            EventType.STOPPING: JobStatus.PENDING,
            EventType.LOST: JobStatus.PENDING,
            EventType.INTERRUPTED: JobStatus.PENDING,
            **_SIGNS_OF_LIFE,
            **_ENDS,
        },
        JobStatus.RUNNING: {
            EventType.STOPPING: JobStatus.RUNNING,
            EventType.LOST: JobStatus.PENDING,
            EventType.INTERRUPTED: JobStatus.PENDING,
            **_SIGNS_OF_LIFE,
            **_ENDS,
        },
        JobStatus.COMPLETED: {},
        JobStatus.FAILED: {},
        JobStatus.CANCELLED: {},
    }
)


def advance(record: JobRecord, event: JobUpdate) -> JobRecord:
    """The record after an event. Pure.

    Raises:
        IllegalTransitionError: The law has no such transition; above all, nothing leads out of an end.
    """
    status = TRANSITIONS[record.status].get(event.type)
    if status is None:
        raise IllegalTransitionError(f"the job is {record.status}; {event.type.value!r} is not possible any more")
    if status is JobStatus.RUNNING and record.submission_id is None:
        status = JobStatus.PENDING  # the last words of an attempt that is lost already: nothing runs
    changed = EFFECTS[event.type](record, event)
    changed = replace(changed, status=status, progress=max(record.progress, changed.progress))
    if event.type in OF_THE_TRAINING:
        changed = replace(changed, heard_at=event.time)
    if status is JobStatus.RUNNING:
        changed = replace(changed, pending_reason=None, started_at=changed.started_at or event.time)
    if status.is_terminal:
        changed = replace(changed, pending_reason=None, stopping=None, seconds_left=None, ended_at=event.time)
    return changed
