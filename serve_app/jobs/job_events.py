"""Events of a job: the entries of ``events.jsonl``, which people read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from serve_app.jobs.job_record import JobRecord
from serve_app.jobs.job_updates import JobUpdate, UpdateType
from serve_app.jobs.retrieval_metrics import changes

_LEVELS = frozenset({"info", "warning", "error"})


@dataclass(frozen=True)
class JobEvent:
    """One event.

    Attributes:
        id: 1 for the first of a job, then one more each.
        time: Unix time in seconds.
        level: ``info``, ``warning`` or ``error``.
        message: One sentence.
    """

    id: int
    time: float
    level: str
    message: str


def event_of(update: JobUpdate, record: JobRecord) -> JobEvent | None:
    """The event about an update; None for updates that are too frequent to be listed.

    Args:
        update: An update.
        record: The job after it; its ``events`` does not count the new event yet.
    """
    if update.type is UpdateType.PROGRESS or (update.type is UpdateType.EVENT and not update.text("message")):
        return None
    level, message = _RENDERERS.get(update.type, _as_recorded)(update, record)
    return JobEvent(record.events + 1, update.time, level, message)


Renderer = Callable[[JobUpdate, JobRecord], tuple[str, str]]


def _as_recorded(update: JobUpdate, record: JobRecord) -> tuple[str, str]:
    return "info", record.message


def _lost(update: JobUpdate, record: JobRecord) -> tuple[str, str]:
    return "warning", record.message


def _failed(update: JobUpdate, record: JobRecord) -> tuple[str, str]:
    return "error", record.message


def _done(update: JobUpdate, record: JobRecord) -> tuple[str, str]:
    worse = any(change.is_worse for change in changes(record.metrics_before, record.metrics_after))
    return "warning" if worse or record.warning else "info", record.message


def _checkpoint(update: JobUpdate, record: JobRecord) -> tuple[str, str]:
    return "info", f"checkpoint at step {update.count('step')}"


def _metrics(update: JobUpdate, record: JobRecord) -> tuple[str, str]:
    values = ", ".join(f"{name} {value:g}" for name, value in update.measures().items())
    return "info", f"quality {update.text('when')} training: {values}"


def _event(update: JobUpdate, record: JobRecord) -> tuple[str, str]:
    level = update.text("level")
    return level if level in _LEVELS else "info", update.text("message") or ""


_RENDERERS: Mapping[UpdateType, Renderer] = MappingProxyType(
    {
        UpdateType.STOPPING: _lost,
        UpdateType.LOST: _lost,
        UpdateType.INTERRUPTED: _lost,
        UpdateType.FAILED: _failed,
        UpdateType.DONE: _done,
        UpdateType.CHECKPOINT: _checkpoint,
        UpdateType.METRICS: _metrics,
        UpdateType.EVENT: _event,
    }
)
