"""Records and events for tests of jobs."""

from __future__ import annotations

from typing import Any

from serve_app.domain.fine_tuning import TrainingKind, TrainingSpec
from serve_app.domain.job_events import EventType, JobEvent
from serve_app.domain.job_law import advance
from serve_app.domain.jobs import JobRecord, JobStatus

NEW = JobRecord("a-job", "my-e5", "multilingual-e5-small", TrainingKind.FULL, created_at=100.0, accepted=40, ignored=2)


def spec(job_id: str = "a-job", model_name: str = "my-e5", models_dir: str = "/models", **more: Any) -> TrainingSpec:
    return TrainingSpec(job_id, model_name, "multilingual-e5-small", "/models/base", models_dir, "e5", **more)


def event(type: EventType, time: float = 200.0, **data: Any) -> JobEvent:
    return JobEvent(type, time, data)


SUBMITTED = event(EventType.SUBMITTED, 110.0, submission_id="a-job-1")
STARTED = event(EventType.STARTED, 120.0, total_steps=100, train_pairs=36, eval_pairs=4, device="cpu")
ENDS = {
    JobStatus.COMPLETED: event(EventType.DONE),
    JobStatus.FAILED: event(EventType.FAILED, reason="the loss is not finite"),
    JobStatus.CANCELLED: event(EventType.CANCELLED),
}


def folded(*events: JobEvent, record: JobRecord = NEW) -> JobRecord:
    for each in events:
        record = advance(record, each)
    return record


RUNNING = folded(SUBMITTED, STARTED)
IN_EVERY_STATE = {
    JobStatus.PENDING: folded(SUBMITTED),
    JobStatus.RUNNING: RUNNING,
    **{status: folded(end, record=RUNNING) for status, end in ENDS.items()},
}
