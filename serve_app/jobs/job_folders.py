"""The job folders of a jobs folder: the truth about every job, on a disk that the tracker and all workers share.

A folder appears whole, by renaming, and a record is replaced whole, by renaming; so whichever process dies at whichever
moment, a reader finds the old or the new state, never half of one.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from serve_app.domain.errors import ServiceError
from serve_app.domain.files import PRIVATE_FOLDER, make_private_folder, remove
from serve_app.jobs.durable_files import replace, storage_errors, sync_folder, write
from serve_app.jobs.ended_index import EndedIndex, EndedJob
from serve_app.jobs.job_events import JobEvent
from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.job_folder_readers import TrainingData, read_job
from serve_app.jobs.job_record import JobRecord
from serve_app.jobs.training_spec import TrainingSpec

logger = logging.getLogger(__name__)

_UNFINISHED = ".unfinished-"  # folders that appear or disappear; no reader opens them


class JobFolders:
    """The job folders below one folder. All methods block on the disk.

    There is one writer, the tracker that holds the folder's lease. Every method that writes checks the lease first and
    raises ``JobsReadOnlyError`` if another tracker holds it, or ``StorageError`` if the disk is full or not writable.
    """

    def __init__(
        self, root: Path, *, check_writable: Callable[[], None] = lambda: None, creates_root: bool = True
    ) -> None:
        """Makes the folder if it is missing.

        Args:
            root: Folder of the job folders.
            check_writable: Raises ``JobsReadOnlyError`` if another tracker may write here.
            creates_root: False only reads: the folder may be on a disk that is mounted read-only.

        Raises:
            StorageError: The folder cannot be made.
        """
        self.root = root
        self.ended = EndedIndex(root)
        self._check_writable = check_writable
        if creates_root:
            with storage_errors():
                make_private_folder(root)

    def folder(self, job_id: str) -> JobFolder:
        """The job's folder, whether it exists or not."""
        return JobFolder(self.root / job_id)

    def job_ids(self) -> list[str]:
        """The names of all job folders, in no order; none of them is opened.

        Raises:
            StorageError: The folder of the job folders cannot be read.
        """
        with storage_errors(), os.scandir(self.root) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]

    def create(self, spec: TrainingSpec, data: TrainingData, record: JobRecord) -> None:
        """Makes a job's folder; it appears whole, or nothing is left of the attempt."""
        unfinished = JobFolder(self.root / f"{_UNFINISHED}{spec.job_id}")
        self._check_writable()
        with storage_errors():
            try:
                make_private_folder(unfinished.path)
                unfinished.logs.mkdir(mode=PRIVATE_FOLDER)
                write(unfinished.pairs_file, data.pairs)
                if data.evaluation is not None:
                    write(unfinished.held_out_file, data.evaluation)
                write(unfinished.spec_file, spec.to_json().encode())
                write(unfinished.record_file, record.to_json().encode())
                self._check_writable()  # writing the data may have taken long
                unfinished.path.rename(self.folder(spec.job_id).path)
            except (OSError, ServiceError):
                remove(unfinished.path)
                raise
            sync_folder(self.root)

    def delete(self, job_id: str) -> None:
        """Removes the job's folder, data and checkpoints included; a result that is published stays."""
        self._check_writable()
        gone = self.root / f"{_UNFINISHED}gone-{job_id}"
        with storage_errors():
            self.folder(job_id).path.rename(gone)
        remove(gone)

    def remove_unfinished(self) -> None:
        """Removes the folders that a crash left half made or half deleted."""
        self._check_writable()
        with storage_errors():
            for rest in self.root.glob(f"{_UNFINISHED}*"):
                remove(rest)

    def remove_leftovers(self, job_ids: Iterable[str]) -> None:
        """Removes what ended jobs no longer need: their checkpoints above all."""
        for job_id in job_ids:
            self._check_writable()
            folder = self.folder(job_id)
            if (job := read_job(folder)) is not None and job.spec is not None and job.record.status.is_terminal:
                for path in folder.cleanup_dirs(job.spec):
                    shutil.rmtree(path, ignore_errors=True)

    def remove_folders(self, folders: Iterable[Path]) -> None:
        """Removes folders that no job needs, with everything in them."""
        for folder in folders:
            self._check_writable()
            shutil.rmtree(folder, ignore_errors=True)

    def write_record(self, record: JobRecord) -> None:
        """Replaces ``job.json``; after an error the old record still exists."""
        self._check_writable()
        with storage_errors():
            replace(self.folder(record.id).record_file, record.to_json().encode())

    def append_events(self, job_id: str, events: Sequence[JobEvent]) -> None:
        """Appends to ``events.jsonl``."""
        self._check_writable()
        text = "".join(json.dumps(asdict(event)) + "\n" for event in events)
        with storage_errors(), self.folder(job_id).events_file.open("ab") as file:
            file.write(text.encode())

    def save_log(self, job_id: str, name: str, text: str) -> None:
        """Keeps a log that would be lost with the cluster; a log that cannot be kept is no reason to fail the job."""
        self._check_writable()
        folder = self.folder(job_id)
        try:
            folder.logs.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            folder.log_file(name).write_text(text, encoding="utf-8", errors="replace")
        except OSError as error:
            logger.warning("job %s: its log cannot be kept: %s", job_id, error)

    def add_ended(self, jobs: Sequence[EndedJob]) -> None:
        """Adds to the index of ended jobs."""
        self._check_writable()
        self.ended.append(jobs)

    def rewrite_ended(self, jobs: Sequence[EndedJob]) -> None:
        """Replaces the index of ended jobs."""
        self._check_writable()
        self.ended.rewrite(jobs)
