"""Records and events for tests of jobs."""

from __future__ import annotations

from typing import Any

from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.job_states import advance
from serve_app.jobs.job_updates import JobUpdate, UpdateType
from serve_app.jobs.training_spec import TrainingKind, TrainingSpec

NEW = JobRecord("a-job", "my-e5", "multilingual-e5-small", TrainingKind.FULL, created_at=100.0, accepted=40, ignored=2)


def spec(job_id: str = "a-job", model_name: str = "my-e5", models_dir: str = "/models", **more: Any) -> TrainingSpec:
    return TrainingSpec(job_id, model_name, "multilingual-e5-small", "/models/base", models_dir, "e5", **more)


def event(type: UpdateType, time: float = 200.0, **data: Any) -> JobUpdate:
    return JobUpdate(type, time, data)


SUBMITTED = event(UpdateType.SUBMITTED, 110.0, submission_id="a-job-1")
STARTED = event(UpdateType.STARTED, 120.0, total_steps=100, train_pairs=36, eval_pairs=4, device="cpu")
ENDS = {
    JobStatus.COMPLETED: event(UpdateType.DONE),
    JobStatus.FAILED: event(UpdateType.FAILED, reason="the loss is not finite"),
    JobStatus.CANCELLED: event(UpdateType.CANCELLED),
}


def folded(*events: JobUpdate, record: JobRecord = NEW) -> JobRecord:
    for each in events:
        record = advance(record, each)
    return record


RUNNING = folded(SUBMITTED, STARTED)
IN_EVERY_STATE = {
    JobStatus.PENDING: folded(SUBMITTED),
    JobStatus.RUNNING: RUNNING,
    **{status: folded(end, record=RUNNING) for status, end in ENDS.items()},
}
