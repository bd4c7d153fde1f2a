"""What each event does to a job's record, its status aside: that is ``domain.job_law``'s."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from serve_app.jobs.job_record import JobRecord
from serve_app.jobs.job_updates import JobUpdate, UpdateType
from serve_app.jobs.retrieval_metrics import changes
from serve_app.jobs.retry_policy import count_loss, reset_losses

_TRAINING_PERCENT = 99.0  # the last percent is measuring, verifying and publishing


def _submitted(record: JobRecord, event: JobUpdate) -> JobRecord:
    return replace(
        record,
        submission_id=event.text("submission_id"),
        attempts=record.attempts + 1,
        last_heartbeat_at=event.time,
        pending_reason=None,
        message="starting" if not record.attempts else f"restarting (attempt {record.attempts + 1})",
    )


def _waiting(record: JobRecord, event: JobUpdate) -> JobRecord:
    reason = event.text("reason")
    last_heartbeat_at = record.last_heartbeat_at if reason else event.time  # silence tells something from now on
    return replace(record, pending_reason=reason, message=reason or "starting", last_heartbeat_at=last_heartbeat_at)


def _stopping(record: JobRecord, event: JobUpdate) -> JobRecord:
    reason = event.text("reason") or "the training is stopped"
    return replace(record, stopping=reason, message=reason)


def _lost(record: JobRecord, event: JobUpdate) -> JobRecord:
    reason = event.text("reason") or "the training is gone"
    resumed = f"step {record.checkpoint}" if record.checkpoint else "the start"
    return replace(
        count_loss(record, event.type),
        submission_id=None,
        stopping=None,
        seconds_left=None,
        pending_reason="queued",
        message=f"{reason}; training will resume from {resumed}",
    )


def _cancelled(record: JobRecord, event: JobUpdate) -> JobRecord:
    return replace(record, message=event.text("reason") or "cancelled")


def _started(record: JobRecord, event: JobUpdate) -> JobRecord:
    resumed = event.count("resumed_step") or 0
    total = event.count("total_steps") or record.total_steps
    device = event.text("device")
    return replace(
        record,
        steps=resumed,
        total_steps=total,
        train_pairs=event.count("train_pairs"),
        eval_pairs=event.count("eval_pairs"),
        device=device,
        progress=_percent(resumed, total),
        message=f"training on {device or 'its device'}" + (f", from step {resumed}" if resumed else ""),
    )


def _progress(record: JobRecord, event: JobUpdate) -> JobRecord:
    step, epoch, loss = event.count("step"), event.number("epoch"), event.number("loss")
    steps = record.steps if step is None else step
    total = event.count("total_steps") or record.total_steps
    return replace(
        record,
        steps=steps,
        total_steps=total,
        epoch=record.epoch if epoch is None else epoch,
        loss=loss,
        learning_rate=event.number("learning_rate"),
        tokens_per_second=event.number("tokens_per_second"),
        seconds_left=event.number("seconds_left"),
        progress=_percent(steps, total),
        message=f"training: step {steps}"
        + (f" of {total}" if total else "")
        + (f", loss {loss:.4f}" if loss is not None else ""),
    )


def _checkpoint(record: JobRecord, event: JobUpdate) -> JobRecord:
    step = event.count("step") or 0
    if step <= record.checkpoint:
        return record
    return replace(reset_losses(record), checkpoint=step, checkpoint_at=event.time)


def _metrics(record: JobRecord, event: JobUpdate) -> JobRecord:
    match event.text("when"):
        case "before":
            return replace(record, metrics_before=event.measures())
        case "after":
            return replace(record, metrics_after=event.measures())
    return record


def _note(record: JobRecord, event: JobUpdate) -> JobRecord:
    # whoever speaks has been started, so nothing is waited for any more
    message = event.text("message")
    warning = _joined(record.warning, message) if event.data.get("lasting") is True else record.warning
    return replace(record, pending_reason=None, message=message or record.message, warning=warning)


def _published(record: JobRecord, event: JobUpdate) -> JobRecord:
    return replace(record, published=True, seconds_left=None, message=f"published as {record.model_name!r}")


def _failed(record: JobRecord, event: JobUpdate) -> JobRecord:
    reason = event.text("reason") or "the training failed and did not say why"
    return replace(record, error=reason, message=f"failed: {reason}")


def _done(record: JobRecord, event: JobUpdate) -> JobRecord:
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
        UpdateType.NOTE: _note,
        UpdateType.PUBLISHED: _published,
        UpdateType.FAILED: _failed,
        UpdateType.DONE: _done,
    }
)


def verdict(record: JobRecord) -> str:
    """How a completed job ended, in a sentence; a result that is worse than its base in any head says so."""
    served = f"completed: served as {record.model_name!r}"
    found = changes(record.metrics_before, record.metrics_after)
    if not found:
        return f"{served}; its quality was not measured"
    told = str(found[0]) if len(found) == 1 else ": " + ", ".join(f"{change.head} {change}" for change in found)
    told = f"nDCG@10 on the held-out examples{'' if told.startswith(':') else ' '}{told}"
    worse = [change.head for change in found if change.is_worse]
    if not worse:
        return f"{served}; {told}"
    where = "" if len(found) == 1 else f" by its {_listed(worse)} head" + "s" * (len(worse) > 1)
    return (
        f"{served}, but it is WORSE than its base {record.base_model!r}{where}: {told}; more data, fewer epochs or a "
        f"lower learning_rate may help"
    )


def _listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _joined(before: str | None, message: str | None) -> str | None:
    """Both, unless a resumed training repeats itself."""
    if before is None or message is None or message in before:
        return before or message
    return f"{before}; {message}"


def _with_warning(message: str, warning: str | None) -> str:
    return message if warning is None else f"{message}. WARNING: {warning}"


def _percent(steps: int, total: int | None) -> float:
    return round(_TRAINING_PERCENT * min(steps / total, 1.0), 1) if total else 0.0
