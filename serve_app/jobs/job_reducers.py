"""Reducers: the effect of each type of update on a job's record, except on its status (see ``job_states``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from serve_app.jobs.job_record import JobRecord
from serve_app.jobs.job_updates import JobUpdate, UpdateType
from serve_app.jobs.retrieval_metrics import changes
from serve_app.jobs.retry_policy import count_loss, reset_losses

_TRAINING_PERCENT = 99.0  # the last percent is measuring, verifying and publishing


def _submitted(record: JobRecord, update: JobUpdate) -> JobRecord:
    return replace(
        record,
        submission_id=update.text("submission_id"),
        attempts=record.attempts + 1,
        last_heartbeat_at=update.time,
        pending_reason=None,
        message="starting" if not record.attempts else f"restarting (attempt {record.attempts + 1})",
    )


def _waiting(record: JobRecord, update: JobUpdate) -> JobRecord:
    reason = update.text("reason")
    last_heartbeat_at = record.last_heartbeat_at if reason else update.time  # the timeout counts from now on
    return replace(record, pending_reason=reason, message=reason or "starting", last_heartbeat_at=last_heartbeat_at)


def _stopping(record: JobRecord, update: JobUpdate) -> JobRecord:
    reason = update.text("reason") or "the training is stopped"
    return replace(record, stopping=reason, message=reason)


def _lost(record: JobRecord, update: JobUpdate) -> JobRecord:
    reason = update.text("reason") or "the training ended"
    resumed = f"step {record.checkpoint}" if record.checkpoint else "the start"
    return replace(
        count_loss(record, update.type),
        submission_id=None,
        stopping=None,
        seconds_left=None,
        pending_reason="queued",
        message=f"{reason}; training will resume from {resumed}",
    )


def _cancelled(record: JobRecord, update: JobUpdate) -> JobRecord:
    return replace(record, message=update.text("reason") or "cancelled")


def _started(record: JobRecord, update: JobUpdate) -> JobRecord:
    resumed = update.count("resumed_step") or 0
    total = update.count("total_steps") or record.total_steps
    device = update.text("device")
    return replace(
        record,
        steps=resumed,
        total_steps=total,
        train_pairs=update.count("train_pairs"),
        eval_pairs=update.count("eval_pairs"),
        device=device,
        progress=_percent(resumed, total),
        message=f"training on {device or 'its device'}" + (f", from step {resumed}" if resumed else ""),
    )


def _progress(record: JobRecord, update: JobUpdate) -> JobRecord:
    step, epoch, loss = update.count("step"), update.number("epoch"), update.number("loss")
    steps = record.steps if step is None else step
    total = update.count("total_steps") or record.total_steps
    return replace(
        record,
        steps=steps,
        total_steps=total,
        epoch=record.epoch if epoch is None else epoch,
        loss=loss,
        learning_rate=update.number("learning_rate"),
        tokens_per_second=update.number("tokens_per_second"),
        seconds_left=update.number("seconds_left"),
        progress=_percent(steps, total),
        message=f"training: step {steps}"
        + (f" of {total}" if total else "")
        + (f", loss {loss:.4f}" if loss is not None else ""),
    )


def _checkpoint(record: JobRecord, update: JobUpdate) -> JobRecord:
    step = update.count("step") or 0
    if step <= record.checkpoint:
        return record
    return replace(reset_losses(record), checkpoint=step, checkpoint_at=update.time)


def _metrics(record: JobRecord, update: JobUpdate) -> JobRecord:
    match update.text("when"):
        case "before":
            return replace(record, metrics_before=update.measures())
        case "after":
            return replace(record, metrics_after=update.measures())
    return record


def _event(record: JobRecord, update: JobUpdate) -> JobRecord:
    # a training that reports something has started, so the job waits for nothing
    message = update.text("message")
    warning = _joined(record.warning, message) if update.data.get("lasting") is True else record.warning
    return replace(record, pending_reason=None, message=message or record.message, warning=warning)


def _published(record: JobRecord, update: JobUpdate) -> JobRecord:
    return replace(record, published=True, seconds_left=None, message=f"published as {record.model_name!r}")


def _failed(record: JobRecord, update: JobUpdate) -> JobRecord:
    reason = update.text("reason") or "the training failed without a reason"
    return replace(record, error=reason, message=f"failed: {reason}")


def _done(record: JobRecord, update: JobUpdate) -> JobRecord:
    steps = record.total_steps or record.steps
    return replace(
        record, published=True, steps=steps, progress=100.0, message=_with_warning(verdict(record), record.warning)
    )


REDUCERS: Mapping[UpdateType, Callable[[JobRecord, JobUpdate], JobRecord]] = MappingProxyType(
    {
        UpdateType.SUBMITTED: _submitted,
        UpdateType.WAITING: _waiting,
        UpdateType.STOPPING: _stopping,
        UpdateType.LOST: _lost,
        UpdateType.INTERRUPTED: _lost,
        UpdateType.CANCELLED: _cancelled,
        UpdateType.STARTED: _started,
        UpdateType.PROGRESS: _progress,
        UpdateType.CHECKPOINT: _checkpoint,
        UpdateType.METRICS: _metrics,
        UpdateType.EVENT: _event,
        UpdateType.PUBLISHED: _published,
        UpdateType.FAILED: _failed,
        UpdateType.DONE: _done,
    }
)


def verdict(record: JobRecord) -> str:
    """A sentence about a completed job's quality; it names every head in which the result is worse than its base."""
    served = f"completed: served as {record.model_name!r}"
    found = changes(record.metrics_before, record.metrics_after)
    if not found:
        return f"{served}; its quality was not measured"
    by_head = ": " + ", ".join(f"{change.head} {change}" for change in found)
    text = f"nDCG@10 on the held-out examples{by_head if len(found) > 1 else f' {found[0]}'}"
    worse = [change.head for change in found if change.is_worse]
    if not worse:
        return f"{served}; {text}"
    where = "" if len(found) == 1 else f" by its {_listed(worse)} head" + "s" * (len(worse) > 1)
    return (
        f"{served}, but it is WORSE than its base {record.base_model!r}{where}: {text}; more data, fewer epochs or a "
        f"lower learning_rate may help"
    )


def _listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _joined(before: str | None, message: str | None) -> str | None:
    """Both messages, without one that a resumed training repeats."""
    if before is None or message is None or message in before:
        return before or message
    return f"{before}; {message}"


def _with_warning(message: str, warning: str | None) -> str:
    return message if warning is None else f"{message}. WARNING: {warning}"


def _percent(steps: int, total: int | None) -> float:
    return round(_TRAINING_PERCENT * min(steps / total, 1.0), 1) if total else 0.0
