"""The diary of a job: what ``events.jsonl`` of its folder holds, for people."""

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
    """One entry.

    Attributes:
        id: 1 for the first of a job, then one more each.
        time: Unix time in seconds.
        level: ``info``, ``warning`` or ``error``.
        message: A sentence.
    """

    id: int
    time: float
    level: str
    message: str


def event_of(event: JobUpdate, record: JobRecord) -> JobEvent | None:
    """The entry about an event; None for those that come too often to be told one by one.

    Args:
        event: What happened.
        record: The job after it, its ``events`` not counted up yet.
    """
    if event.type is UpdateType.PROGRESS or (event.type is UpdateType.NOTE and not event.text("message")):
        return None
    level, message = _RENDERERS.get(event.type, _as_recorded)(event, record)
    return JobEvent(record.events + 1, event.time, level, message)


Renderer = Callable[[JobUpdate, JobRecord], tuple[str, str]]


def _as_recorded(event: JobUpdate, record: JobRecord) -> tuple[str, str]:
    return "info", record.message


def _lost(event: JobUpdate, record: JobRecord) -> tuple[str, str]:
    return "warning", record.message


def _failed(event: JobUpdate, record: JobRecord) -> tuple[str, str]:
    return "error", record.message


def _done(event: JobUpdate, record: JobRecord) -> tuple[str, str]:
    worse = any(change.is_worse for change in changes(record.metrics_before, record.metrics_after))
    return "warning" if worse or record.warning else "info", record.message


def _checkpoint(event: JobUpdate, record: JobRecord) -> tuple[str, str]:
    return "info", f"checkpoint at step {event.count('step')}"


def _metrics(event: JobUpdate, record: JobRecord) -> tuple[str, str]:
    told = ", ".join(f"{name} {value:g}" for name, value in event.measures().items())
    return "info", f"quality {event.text('when')} training: {told}"


def _note(event: JobUpdate, record: JobRecord) -> tuple[str, str]:
    level = event.text("level")
    return level if level in _LEVELS else "info", event.text("message") or ""


_RENDERERS: Mapping[UpdateType, Renderer] = MappingProxyType(
    {
        UpdateType.STOPPING: _lost,
        UpdateType.LOST: _lost,
        UpdateType.INTERRUPTED: _lost,
        UpdateType.FAILED: _failed,
        UpdateType.DONE: _done,
        UpdateType.CHECKPOINT: _checkpoint,
        UpdateType.METRICS: _metrics,
        UpdateType.NOTE: _note,
    }
)
