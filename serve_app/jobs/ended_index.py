"""The index of ended jobs: one file with the fields that a start and a list need, so that no folder is opened.

Ended jobs never change, and there may be thousands of them. The folders stay the truth: an entry without a folder does
not count, a folder without an entry is read, and a line that cannot be read is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from serve_app.domain.files import replace_file
from serve_app.jobs.durable_files import read_json_lines, storage_errors
from serve_app.jobs.job_record import JobRecord

FILE_NAME = ".ended.jsonl"  # in the jobs folder; a name with a dot is no job's


class EndedJob(NamedTuple):
    """An entry.

    Attributes:
        id: Of the job.
        created_at: Unix time in seconds.
        ended_at: Unix time in seconds.
        is_clean: Its checkpoints are removed.
    """

    id: str
    created_at: float
    ended_at: float
    is_clean: bool = False

    @classmethod
    def of_record(cls, record: JobRecord) -> EndedJob:
        """The entry of a job that has just ended."""
        return cls(record.id, record.created_at, record.created_at if record.ended_at is None else record.ended_at)


class EndedIndex:
    """The file. All methods block on the disk."""

    def __init__(self, jobs_dir: Path) -> None:
        """Touches nothing."""
        self._path = jobs_dir / FILE_NAME

    def read(self) -> dict[str, EndedJob]:
        """The entries by id; the last one of a job counts.

        Raises:
            StorageError: The file is there and cannot be read.
        """
        found: dict[str, EndedJob] = {}
        offset, end = 0, -1
        while offset != end:
            end = offset
            with storage_errors():
                lines, offset = read_json_lines(self._path, offset)
            for line in lines:
                job_id, created, ended = line.get("id"), line.get("created_at"), line.get("ended_at")
                if isinstance(job_id, str) and isinstance(created, int | float) and isinstance(ended, int | float):
                    found[job_id] = EndedJob(job_id, created, ended, line.get("is_clean") is True)
        return found

    def append(self, jobs: Iterable[EndedJob]) -> None:
        """Adds entries.

        Raises:
            StorageError: The disk is full or not writable.
        """
        if text := _lines(jobs):
            with storage_errors(), self._path.open("ab") as file:
                file.write(text)

    def rewrite(self, jobs: Iterable[EndedJob]) -> None:
        """Replaces all entries.

        Raises:
            StorageError: The disk is full or not writable; the old entries are still there.
        """
        with storage_errors():
            replace_file(self._path, _lines(jobs), durable=False)


def _lines(jobs: Iterable[EndedJob]) -> bytes:
    return "".join(json.dumps(job._asdict()) + "\n" for job in jobs).encode()
