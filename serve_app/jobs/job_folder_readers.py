"""Readers of a job folder's files; they block on the disk and need no lease."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, NamedTuple

from serve_app.jobs.durable_files import read_json_lines, storage_errors
from serve_app.jobs.job_events import JobEvent
from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.job_updates import JobUpdate
from serve_app.jobs.training_spec import TrainingKind, TrainingSpec

logger = logging.getLogger(__name__)

_LOG_BYTES = 1024 * 1024


@dataclass(frozen=True)
class TrainingData:
    """A job's examples, as its files hold them.

    Attributes:
        pairs: ``pairs.jsonl``, UTF-8.
        evaluation: ``eval.jsonl``, if the client sent held-out examples.
    """

    pairs: bytes
    evaluation: bytes | None = None


class StoredJob(NamedTuple):
    """A job as its folder holds it.

    Attributes:
        spec: The job's spec; None if it cannot be read.
        record: Its record.
        is_readable: False if the record stands for a folder that cannot be read.
    """

    spec: TrainingSpec | None
    record: JobRecord
    is_readable: bool = True


def read_job(folder: JobFolder) -> StoredJob | None:
    """A job; None if it does not exist, as when it is being deleted.

    The record of a folder that cannot be read has failed, and its error names the reason.
    """
    spec: TrainingSpec | None = None
    try:
        spec = folder.read_spec()
        record = folder.read_record()
        if {spec.job_id, record.id} != {folder.path.name}:
            raise ValueError(f"it belongs to the job {record.id!r}")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        if not folder.path.is_dir():
            return None
        logger.error("the job folder %s cannot be read: %s", folder.path, error)
        return StoredJob(spec, _unreadable(folder, spec, f"its folder cannot be read: {error}"), is_readable=False)
    return StoredJob(spec, record)


def _unreadable(folder: JobFolder, spec: TrainingSpec | None, reason: str) -> JobRecord:
    """A failed record in place of one that cannot be read; the file stays as it is, for the operator."""
    changed_at = folder.path.stat().st_mtime
    return JobRecord(
        id=folder.path.name,
        model_name=spec.model_name if spec else "unknown",
        base_model=spec.base_model if spec else "unknown",
        kind=spec.kind if spec else TrainingKind.FULL,
        created_at=changed_at,
        status=JobStatus.FAILED,
        message=f"failed: {reason}",
        error=reason,
        ended_at=changed_at,
    )


def read_data(folder: JobFolder) -> TrainingData:
    """A job's examples.

    Raises:
        StorageError: They cannot be read.
    """
    with storage_errors():
        held_out = folder.held_out_file.read_bytes() if folder.held_out_file.exists() else None
        return TrainingData(folder.pairs_file.read_bytes(), held_out)


def read_events(folder: JobFolder, *, after: int = 0) -> list[JobEvent]:
    """The entries of ``events.jsonl`` whose id is above ``after``, in order.

    Entries are appended before the record counts them, so a crash between the two leaves some of them twice under the
    same ids: the first of each counts.

    Raises:
        StorageError: The file exists and cannot be read.
    """
    found: list[JobEvent] = []
    offset, end = 0, -1
    while offset != end:
        end = offset
        with storage_errors():
            lines, offset = read_json_lines(folder.events_file, offset)
        for line in lines:
            if isinstance(number := line.get("id"), int) and number > (found[-1].id if found else after):
                found.append(JobEvent(number, line.get("time", 0.0), line.get("level", ""), line.get("message", "")))
    return found


def read_updates(folder: JobFolder, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Whole lines of ``training.jsonl`` from a byte offset on, and the offset of the next call.

    Raises:
        StorageError: The file exists and cannot be read.
    """
    with storage_errors():
        return read_json_lines(folder.updates_file, offset)


def read_all_updates(folder: JobFolder) -> list[JobUpdate]:
    """All updates that a job's training has written so far.

    Raises:
        StorageError: The file exists and cannot be read.
    """
    found: list[JobUpdate] = []
    offset, end = 0, -1
    while offset != end:
        end = offset
        lines, offset = read_updates(folder, offset)
        found += [update for line in lines if (update := JobUpdate.of_line(line, now=0.0)) is not None]
    return found


def read_logs(folder: JobFolder) -> dict[str, str]:
    """The last megabyte of each log, by name.

    Raises:
        StorageError: One cannot be read.
    """
    logs = {}
    with storage_errors():
        for path in sorted(folder.logs.glob("*.log")):
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _LOG_BYTES))
                logs[path.stem] = file.read().decode("utf-8", "replace")
    return logs


def read_loss_curve(folder: JobFolder) -> str | None:
    """The loss curve as SVG; None until the training has drawn it.

    Raises:
        StorageError: It cannot be read.
    """
    with storage_errors():
        return folder.loss_curve_file.read_text(encoding="utf-8") if folder.loss_curve_file.is_file() else None
