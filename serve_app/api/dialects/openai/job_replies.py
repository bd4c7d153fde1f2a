"""Jobs in OpenAI's form; unknown values are null."""

from __future__ import annotations

from typing import Any

from serve_app.api.field_patterns import EVENT_PREFIX
from serve_app.jobs.job_events import JobEvent
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.training_spec import TrainingKind, TrainingSpec, default_learning_rate

OWNER = "retrieval-model-server"

_STATUS = {
    JobStatus.PENDING: "queued",
    JobStatus.RUNNING: "running",
    JobStatus.COMPLETED: "succeeded",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
}
_METHOD = {TrainingKind.FULL: "supervised", TrainingKind.LORA: "lora", TrainingKind.QLORA: "qlora"}
_LEVEL = {"warning": "warn", "error": "error"}


def openai_job(record: JobRecord, spec: TrainingSpec | None) -> dict[str, Any]:
    """A job.

    Args:
        record: The current state of the job.
        spec: Its training spec; None if that cannot be read.
    """
    origin = spec.origin if spec else None
    common = _hyperparameters(spec)
    method = _METHOD[record.kind]
    return {
        "id": record.id,
        "object": "fine_tuning.job",
        "created_at": int(record.created_at),
        "finished_at": None if record.ended_at is None else int(record.ended_at),
        "estimated_finish": _estimated_finish(record),
        "status": _STATUS[record.status],
        "model": record.base_model,
        "fine_tuned_model": record.model_name if record.status is JobStatus.COMPLETED else None,
        "organization_id": OWNER,
        "training_file": origin and origin.training_file,
        "validation_file": origin and origin.validation_file,
        "result_files": [],
        "trained_tokens": None,
        "seed": spec and spec.seed,
        "hyperparameters": common,
        "method": {"type": method, method: {"hyperparameters": common | _adapters(record, spec)}},
        "metadata": origin and origin.metadata,
        "error": None if record.error is None else {"code": "job_failed", "message": record.error, "param": None},
        "accepted": record.accepted,
        "ignored": record.ignored,
    }


def openai_event(event: JobEvent) -> dict[str, Any]:
    """An event of a job."""
    return {
        "id": f"{EVENT_PREFIX}{event.id}",
        "object": "fine_tuning.job.event",
        "created_at": int(event.time),
        "level": _LEVEL.get(event.level, "info"),
        "message": event.message,
        "type": "message",
    }


def openai_checkpoints(record: JobRecord) -> list[dict[str, Any]]:
    """The result of a completed job, or the last checkpoint of another job, if it has one.

    While a job trains, its loss is of a later step than its checkpoint, so only the result has a loss.
    """
    if record.status is JobStatus.COMPLETED and record.ended_at is not None:
        measured = {"step": record.steps, **(record.metrics_after or {})}
        if record.loss is not None:
            measured["train_loss"] = record.loss
        return [_checkpoint(record, record.steps, record.ended_at, record.model_name, measured)]
    if record.checkpoint and record.checkpoint_at is not None:
        return [_checkpoint(record, record.checkpoint, record.checkpoint_at, None, {"step": record.checkpoint})]
    return []


def _checkpoint(
    record: JobRecord, step: int, created_at: float, model: str | None, metrics: dict[str, Any]
) -> dict[str, Any]:
    return {
        "id": f"ftckpt-{record.id}-{step}",
        "object": "fine_tuning.job.checkpoint",
        "created_at": int(created_at),
        "fine_tuning_job_id": record.id,
        "fine_tuned_model_checkpoint": model,
        "step_number": step,
        "metrics": metrics,
    }


def _estimated_finish(record: JobRecord) -> int | None:
    if record.status is not JobStatus.RUNNING or record.seconds_left is None or record.last_heartbeat_at is None:
        return None
    return int(record.last_heartbeat_at + record.seconds_left)


def _hyperparameters(spec: TrainingSpec | None) -> dict[str, Any]:
    if spec is None:
        return {"n_epochs": None, "batch_size": None, "learning_rate_multiplier": None}
    multiplier = spec.learning_rate / default_learning_rate(spec.kind)
    return {
        "n_epochs": spec.epochs,
        "batch_size": spec.batch_size,
        "learning_rate_multiplier": float(f"{multiplier:.6g}"),  # as in the request: 0.1, not 0.10000000000000002
    }


def _adapters(record: JobRecord, spec: TrainingSpec | None) -> dict[str, Any]:
    if record.kind is TrainingKind.FULL:
        return {}
    shape = spec.lora if spec else None
    return {"r": shape and shape.r, "lora_alpha": shape and shape.alpha, "lora_dropout": shape and shape.dropout}
