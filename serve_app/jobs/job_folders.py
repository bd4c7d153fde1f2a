"""Job folders: the truth about every job, on a disk that the tracker and all training workers share.

A folder appears whole, by renaming, and a record is replaced whole, by renaming; so whatever dies at whatever moment,
what is read afterwards is the old or the new, never half of one. See ``domain.fine_tuning`` for what is inside.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from serve_app.domain.errors import ServiceError
from serve_app.domain.files import PRIVATE_FOLDER, make_private_folder, remove
from serve_app.jobs.durable_files import read_json_lines, replace, storage_errors, sync_folder, write
from serve_app.jobs.ended_index import EndedIndex, EndedJob
from serve_app.jobs.job_events import JobEvent
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.training_spec import TrainingKind, TrainingSpec, cleanup_dirs

logger = logging.getLogger(__name__)

_UNFINISHED = ".unfinished-"  # folders that appear or disappear; nobody reads them
_LOG_BYTES = 1024 * 1024


@dataclass(frozen=True)
class TrainingData:
    """What a job is trained on, as its files hold it.

    Attributes:
        pairs: ``pairs.jsonl``, UTF-8.
        evaluation: ``eval.jsonl``, if the client sent held-out examples.
    """

    pairs: bytes
    evaluation: bytes | None = None


class StoredJob(NamedTuple):
    """What a job folder says.

    Attributes:
        spec: What the job was asked to do; None if that can not be read.
        record: Where it is.
        is_readable: The record is the folder's own.
    """

    spec: TrainingSpec | None
    record: JobRecord
    is_readable: bool = True


class JobFolders:
    """The job folders below one folder. All methods block on the disk.

    There is one writer, the tracker that holds the folder's lease; every method that writes asks for it first.
    """

    def __init__(
        self, root: Path, *, check_writable: Callable[[], None] = lambda: None, creates_root: bool = True
    ) -> None:
        """Makes the folder if it is missing.

        Args:
            root: Folder of the job folders.
            check_writable: Raises ``JobsReadOnlyError`` if somebody else may write here.
            creates_root: False only reads: the folder may be on a disk that is mounted read-only.

        Raises:
            StorageError: The folder can not be made.
        """
        self.root = root
        self.ended = EndedIndex(root)
        self._check_writable = check_writable
        if creates_root:
            with storage_errors():
                make_private_folder(root)

    def remove_unfinished(self) -> None:
        """Removes what a crash left behind.

        Raises:
            JobsReadOnlyError: It may be what another tracker is just writing.
            StorageError: The folder can not be read.
        """
        self._check_writable()
        with storage_errors():
            for rest in self.root.glob(f"{_UNFINISHED}*"):
                remove(rest)

    def folder(self, job_id: str) -> Path:
        """The job's folder, whether it is there or not."""
        return self.root / job_id

    def create(self, spec: TrainingSpec, data: TrainingData, record: JobRecord) -> None:
        """Makes a job's folder; it is there whole or not at all.

        Raises:
            JobsReadOnlyError: Another tracker writes here; nothing is left of the attempt.
            StorageError: The disk is full or not writable; nothing is left of the attempt.
        """
        unfinished = self.root / f"{_UNFINISHED}{spec.job_id}"
        self._check_writable()
        with storage_errors():
            try:
                make_private_folder(unfinished)
                (unfinished / "logs").mkdir(mode=PRIVATE_FOLDER)
                write(unfinished / "pairs.jsonl", data.pairs)
                if data.evaluation is not None:
                    write(unfinished / "eval.jsonl", data.evaluation)
                write(unfinished / "spec.json", spec.to_json().encode())
                write(unfinished / "job.json", record.to_json().encode())
                self._check_writable()  # writing the data may have taken long
                unfinished.rename(self.folder(spec.job_id))
            except (OSError, ServiceError):
                remove(unfinished)
                raise
            sync_folder(self.root)

    def data(self, job_id: str) -> TrainingData:
        """What a job is trained on.

        Raises:
            StorageError: It can not be read.
        """
        folder = self.folder(job_id)
        with storage_errors():
            held_out = folder / "eval.jsonl"
            return TrainingData(
                (folder / "pairs.jsonl").read_bytes(), held_out.read_bytes() if held_out.exists() else None
            )

    def job_ids(self) -> list[str]:
        """The names of all job folders, in no order; none of them is opened.

        Raises:
            StorageError: The folder of the job folders can not be read.
        """
        with storage_errors(), os.scandir(self.root) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]

    def read(self, job_id: str) -> StoredJob | None:
        """A job; None if there is none, as when it is deleted at this moment.

        The record of a folder that can not be read is a failed one that says why.
        """
        return _read(self.folder(job_id))

    def add_ended(self, jobs: Sequence[EndedJob]) -> None:
        """Adds to the index of ended jobs.

        Raises:
            JobsReadOnlyError: Another tracker writes here.
            StorageError: The disk is full or not writable.
        """
        self._check_writable()
        self.ended.append(jobs)

    def rewrite_ended(self, jobs: Sequence[EndedJob]) -> None:
        """Replaces the index of ended jobs.

        Raises:
            JobsReadOnlyError: Another tracker writes here.
            StorageError: The disk is full or not writable.
        """
        self._check_writable()
        self.ended.rewrite(jobs)

    def remove_leftovers(self, job_ids: Iterable[str]) -> None:
        """Removes what jobs that have ended need no more: their checkpoints above all.

        Raises:
            JobsReadOnlyError: Another tracker writes here.
            StorageError: Whether that is so can not be read.
        """
        for job_id in job_ids:
            self._check_writable()
            if (job := self.read(job_id)) is not None and job.spec is not None and job.record.status.is_terminal:
                for path in cleanup_dirs(job.spec, self.folder(job_id)):
                    shutil.rmtree(path, ignore_errors=True)

    def remove_folders(self, folders: Iterable[Path]) -> None:
        """Removes folders that no job needs, with all that is in them.

        Raises:
            JobsReadOnlyError: Another tracker writes here.
            StorageError: Whether that is so can not be read.
        """
        for folder in folders:
            self._check_writable()
            shutil.rmtree(folder, ignore_errors=True)

    def write(self, record: JobRecord) -> None:
        """Replaces ``job.json``.

        Raises:
            JobsReadOnlyError: Another tracker writes here.
            StorageError: The disk is full or not writable; the old record is still there.
        """
        self._check_writable()
        with storage_errors():
            replace(self.folder(record.id) / "job.json", record.to_json().encode())

    def delete(self, job_id: str) -> None:
        """Removes the job's folder, data and checkpoints included; a result that is published stays.

        Raises:
            JobsReadOnlyError: Another tracker writes here.
            StorageError: The disk is not writable.
        """
        self._check_writable()
        gone = self.root / f"{_UNFINISHED}gone-{job_id}"
        with storage_errors():
            self.folder(job_id).rename(gone)
        remove(gone)

    def append_events(self, job_id: str, events: Sequence[JobEvent]) -> None:
        """Appends to ``events.jsonl``.

        Raises:
            JobsReadOnlyError: Another tracker writes here.
            StorageError: The disk is full or not writable.
        """
        self._check_writable()
        text = "".join(json.dumps(asdict(event)) + "\n" for event in events)
        with storage_errors(), (self.folder(job_id) / "events.jsonl").open("ab") as file:
            file.write(text.encode())

    def events(self, job_id: str, *, after: int = 0) -> list[JobEvent]:
        """The entries of ``events.jsonl`` whose id is above ``after``, in order.

        Entries are appended before the record counts them, so after a crash between the two some are written again
        under the same ids: the first of each counts.
        """
        found: list[JobEvent] = []
        offset, end = 0, -1
        while offset != end:
            end = offset
            with storage_errors():
                lines, offset = read_json_lines(self.folder(job_id) / "events.jsonl", offset)
            for line in lines:
                if isinstance(number := line.get("id"), int) and number > (found[-1].id if found else after):
                    found.append(
                        JobEvent(number, line.get("time", 0.0), line.get("level", ""), line.get("message", ""))
                    )
        return found

    def tail_training(self, job_id: str, offset: int) -> tuple[list[dict[str, Any]], int]:
        """Whole lines of ``training.jsonl`` from ``offset`` on, and the offset to go on from.

        Raises:
            StorageError: The file is there and can not be read.
        """
        with storage_errors():
            return read_json_lines(self.folder(job_id) / "training.jsonl", offset)

    def save_log(self, job_id: str, name: str, text: str) -> None:
        """Keeps a log that would be lost with the cluster; failing to is no reason to fail the job."""
        self._check_writable()
        try:
            (self.folder(job_id) / "logs").mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            (self.folder(job_id) / "logs" / f"{name}.log").write_text(text, encoding="utf-8", errors="replace")
        except OSError as error:
            logger.warning("job %s: its log can not be kept: %s", job_id, error)

    def logs(self, job_id: str) -> dict[str, str]:
        """The last megabyte of each file in ``logs/``, by name."""
        told = {}
        with storage_errors():
            for path in sorted((self.folder(job_id) / "logs").glob("*.log")):
                with path.open("rb") as file:
                    file.seek(max(0, path.stat().st_size - _LOG_BYTES))
                    told[path.stem] = file.read().decode("utf-8", "replace")
        return told

    def loss_curve(self, job_id: str) -> str | None:
        """``loss.svg``, if the training has drawn it."""
        path = self.folder(job_id) / "loss.svg"
        with storage_errors():
            return path.read_text(encoding="utf-8") if path.is_file() else None


def _read(folder: Path) -> StoredJob | None:
    """A job; None if it is deleted at this moment."""
    spec: TrainingSpec | None = None
    try:
        spec = TrainingSpec.from_json((folder / "spec.json").read_text(encoding="utf-8"))
        record = JobRecord.from_json((folder / "job.json").read_text(encoding="utf-8"))
        if {spec.job_id, record.id} != {folder.name}:
            raise ValueError(f"it belongs to the job {record.id!r}")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        if not folder.is_dir():
            return None
        logger.error("the job folder %s can not be read: %s", folder, error)
        return StoredJob(spec, _unreadable(folder, spec, f"its folder can not be read: {error}"), is_readable=False)
    return StoredJob(spec, record)


def _unreadable(folder: Path, spec: TrainingSpec | None, reason: str) -> JobRecord:
    """A failed record in place of one that can not be read; the file stays as it is, for whoever looks into it."""
    changed_at = folder.stat().st_mtime
    return JobRecord(
        id=folder.name,
        model_name=spec.model_name if spec else "unknown",
        base_model=spec.base_model if spec else "unknown",
        kind=spec.kind if spec else TrainingKind.FULL,
        created_at=changed_at,
        status=JobStatus.FAILED,
        message=f"failed: {reason}",
        error=reason,
        ended_at=changed_at,
    )
