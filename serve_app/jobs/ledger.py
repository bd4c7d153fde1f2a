"""All jobs in memory, always the same as on the disk: what is not written has not happened."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from serve_app.domain.errors import ConflictError, JobNotFoundError
from serve_app.domain.fine_tuning import TrainingSpec, leftovers, staging_folder
from serve_app.domain.job_events import EventType, JobEvent
from serve_app.domain.job_law import advance
from serve_app.domain.job_notes import JobNote, note_of
from serve_app.domain.jobs import JobRecord, JobStatus
from serve_app.jobs.store import JobStore, TrainingData

logger = logging.getLogger(__name__)


class Ledger:
    """Records by id. Blocks on the disk; every change is one call without a pause, so that nobody sees half of it."""

    def __init__(self, store: JobStore, clock: Callable[[], float]) -> None:
        """Reads all job folders.

        Args:
            store: The folders.
            clock: Unix time in seconds.

        Raises:
            StorageError: The folders can not be read.
        """
        self.store = store
        self.clock = clock
        jobs = store.load()
        self._records = {record.id: record for _, record in jobs}  # oldest first
        self._specs = {record.id: spec for spec, record in jobs if spec is not None}

    def __contains__(self, job_id: object) -> bool:
        """Whether there is a job with this id."""
        return job_id in self._records

    def get(self, job_id: str) -> JobRecord:
        """The record as it is now.

        Raises:
            JobNotFoundError: There is no such job.
        """
        try:
            return self._records[job_id]
        except KeyError:
            raise JobNotFoundError("Job not found") from None

    def spec(self, job_id: str) -> TrainingSpec:
        """What the job was asked to do; there for every job that has not ended."""
        return self._specs[job_id]

    def specs(self, job_ids: Iterable[str]) -> dict[str, TrainingSpec]:
        """What jobs were asked to do, by id; without those that are gone or whose spec can not be read."""
        return {job_id: self._specs[job_id] for job_id in job_ids if job_id in self._specs}

    def live(self) -> list[JobRecord]:
        """Jobs that have not ended, oldest first."""
        return [record for record in self._records.values() if not record.status.is_terminal]

    def since(self, time: float) -> list[JobRecord]:
        """Jobs that were created at this time, in Unix seconds, or later; oldest first."""
        return [record for record in self._records.values() if record.created_at >= time]

    def page(self, *, limit: int, after: str | None) -> list[JobRecord]:
        """Jobs, newest first.

        Args:
            limit: At most so many.
            after: Only those that are older than the job with this id.

        Raises:
            JobNotFoundError: There is no job ``after``.
        """
        newest_first = list(reversed(self._records.values()))
        start = 0 if after is None else newest_first.index(self.get(after)) + 1
        return newest_first[start : start + limit]

    def refuse_taken_name(self, spec: TrainingSpec) -> None:
        """Makes sure that the result's name is free.

        Raises:
            ConflictError: A model or a job that has not ended has it.
        """
        if os.path.lexists(Path(spec.models_dir) / spec.model_name):
            raise ConflictError(f"model_name: there is a model {spec.model_name!r} already; choose another name")
        for record in self.live():
            if record.model_name == spec.model_name:
                raise ConflictError(f"model_name: the job {record.id} is making {spec.model_name!r}; cancel it first")

    def create(self, spec: TrainingSpec, data: TrainingData, record: JobRecord) -> None:
        """Makes the job's folder; ``enter`` makes it known. Apart, since this takes long and that must be at once.

        Raises:
            StorageError: It can not be written.
        """
        self.store.create(spec, data, record)

    def enter(self, spec: TrainingSpec, record: JobRecord) -> None:
        """Makes a job known whose folder was created."""
        self._specs[spec.job_id] = spec
        self._records[spec.job_id] = record

    def forget(self, job_id: str) -> None:
        """The counterpart of ``enter``."""
        self._records.pop(job_id, None)
        self._specs.pop(job_id, None)

    def apply(self, job_id: str, type_: EventType, **data: object) -> JobRecord:
        """Something happened to a job, now.

        Raises:
            IllegalTransitionError: It can not happen to a job in this state.
            StorageError: It could not be written, so it has not happened.
        """
        return self._advance(self.get(job_id), [JobEvent(type_, self.clock(), data)])

    def wait(self, record: JobRecord, reason: str | None) -> None:
        """Notes what a job waits for, if that has changed; None if for nothing any more."""
        if reason != record.pending_reason:
            self.apply(record.id, EventType.WAITING, reason=reason)

    def fold(self, job_id: str, *, deaf_to: Collection[EventType] = ()) -> JobRecord:
        """Takes in what the training has said since the last time.

        Args:
            job_id: The job.
            deaf_to: Words that do not count now.

        Raises:
            StorageError: It could not be read or written; the next call starts at the same place.
        """
        record = self.get(job_id)
        while not record.status.is_terminal:
            lines, offset = self.store.tail_training(job_id, record.read_bytes)
            if offset == record.read_bytes:
                break
            now = self.clock()
            said = [event for line in lines if (event := JobEvent.of_line(line, now=now)) is not None]
            record = self._advance(
                replace(record, read_bytes=offset), [event for event in said if event.type not in deaf_to]
            )
        return record

    def is_published(self, job_id: str) -> bool:
        """Whether the job's own result is there; its training may have died before it could say so."""
        spec = self.spec(job_id)
        try:
            text = (Path(spec.models_dir) / spec.model_name / "manifest.json").read_text(encoding="utf-8")
            manifest = json.loads(text)
        except (OSError, ValueError):
            return False
        return isinstance(manifest, dict) and manifest.get("job_id") == job_id

    def complete(self, job_id: str) -> JobRecord:
        """Ends a job whose result is there and whose training died before it could say so, or tidy up.

        Raises:
            StorageError: It could not be written, so it has not happened.
        """
        record = self.apply(job_id, EventType.DONE)
        for folder in leftovers(self.spec(job_id), self.store.folder(job_id)):
            shutil.rmtree(folder, ignore_errors=True)
        return record

    def remove_staged(self, job_id: str) -> None:
        """Removes what a job that has ended had written of its result: it is as large as a model, and nobody's."""
        if (spec := self._specs.get(job_id)) is not None:
            shutil.rmtree(staging_folder(spec), ignore_errors=True)

    def _advance(self, record: JobRecord, events: Sequence[JobEvent]) -> JobRecord:
        notes: list[JobNote] = []
        for event in events:
            record = advance(record, event)
            if (note := note_of(event, record)) is not None:
                notes.append(note)
                record = replace(record, events=note.id)
            if record.status.is_terminal:
                break  # the end is the end, whatever stands behind it in the file
        self.store.append_notes(record.id, notes)
        self.store.write(record)
        self._records[record.id] = record
        if record.status in (JobStatus.FAILED, JobStatus.CANCELLED):
            self.remove_staged(record.id)
        return record
