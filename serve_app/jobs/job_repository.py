"""All jobs of a jobs folder, for their one writer: a change that is not on the disk has not happened."""

from __future__ import annotations

import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from serve_app.domain.errors import ConflictError, ModelLoadError, ServiceError, StorageError
from serve_app.domain.manifest import Manifest
from serve_app.jobs.ended_index import EndedJob
from serve_app.jobs.job_events import JobEvent, event_of
from serve_app.jobs.job_folder_readers import StoredJob, read_updates
from serve_app.jobs.job_folders import JobFolders
from serve_app.jobs.job_index import JobIndex
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.job_states import advance
from serve_app.jobs.job_updates import JobUpdate, UpdateType
from serve_app.jobs.training_spec import TrainingSpec

logger = logging.getLogger(__name__)

KEEP_LEFTOVERS_S = 24 * 3600.0
_CLEANED_AT_ONCE = 20
_STALE_ENTRIES = 100  # so few superfluous entries do not justify to rewrite the index of ended jobs
_NOT_INDEXED = "the index of ended jobs cannot be written, so the next start reads their folders: %s"


class JobRepository(JobIndex):
    """The jobs of the tracker that holds the lease: the records, in memory as on the disk, and how they change."""

    def __init__(self, store: JobFolders, clock: Callable[[], float]) -> None:
        """Lists the job folders and brings the index of ended jobs up to date.

        Args:
            store: The folders.
            clock: Unix time in seconds.

        Raises:
            JobsReadOnlyError: The lease was lost meanwhile.
            StorageError: The folders cannot be read.
        """
        super().__init__(store)
        self.clock = clock
        self._unclean = deque(sorted((job.ended_at, job.id) for job in self._ended.values() if not job.is_clean))
        self._unneeded: list[Path] = []
        known = self._known_ended
        try:
            if len(known) > 2 * len(self._ended) + _STALE_ENTRIES:
                store.rewrite_ended(list(self._ended.values()))
            else:
                store.add_ended([entry for job_id, entry in self._ended.items() if job_id not in known])
        except StorageError as error:
            logger.warning(_NOT_INDEXED, error.message)

    def require_free_name(self, spec: TrainingSpec) -> None:
        """Makes sure that the result's name is free.

        Raises:
            ConflictError: A model or a job that has not ended has it.
        """
        if os.path.lexists(spec.result_dir):
            raise ConflictError(f"model_name: there is a model {spec.model_name!r} already; choose another name")
        for record in self.live():
            if record.model_name == spec.model_name:
                raise ConflictError(f"model_name: the job {record.id} is making {spec.model_name!r}; cancel it first")

    def apply(self, job_id: str, type_: UpdateType, **data: object) -> JobRecord:
        """Applies an update of the tracker.

        Raises:
            IllegalTransitionError: The job's status does not allow it.
            StorageError: It could not be written, so it has not happened.
        """
        return self._advance(self.get(job_id), [JobUpdate(type_, self.clock(), data)])

    def wait(self, record: JobRecord, reason: str | None) -> None:
        """Records what a job waits for, if that has changed; None if it no longer waits."""
        if reason != record.pending_reason:
            self.apply(record.id, UpdateType.WAITING, reason=reason)

    def fold(self, job_id: str, *, ignoring: Collection[UpdateType] = ()) -> JobRecord:
        """Applies the training's new updates.

        Args:
            job_id: The job.
            ignoring: Types of updates that are skipped.

        Raises:
            StorageError: It could not be read or written; the next call starts at the same offset.
        """
        record = self.get(job_id)
        while not record.status.is_terminal:
            lines, offset = read_updates(self.store.folder(job_id), record.read_bytes)
            if offset == record.read_bytes:
                break
            now = self.clock()
            updates = [update for line in lines if (update := JobUpdate.of_line(line, now=now)) is not None]
            kept = [update for update in updates if update.type not in ignoring]
            record = self._advance(replace(record, read_bytes=offset), kept)
        return record

    def is_published(self, job_id: str) -> bool:
        """True if the job's own result exists; its training may have died before it could report that."""
        try:
            return Manifest.read(self.spec(job_id).result_dir).job_id == job_id
        except ModelLoadError:
            return False

    def complete(self, job_id: str) -> JobRecord:
        """Ends a job whose result exists and whose training died before it could report that, or clean up.

        Raises:
            StorageError: It could not be written, so it has not happened.
        """
        record = self.apply(job_id, UpdateType.DONE)
        self._unneeded += self.store.folder(job_id).cleanup_dirs(self.spec(job_id))
        return record

    def remove_staged(self, job_id: str) -> None:
        """Removes the unpublished result of an ended job, which is as large as a model."""
        if (spec := self.specs([job_id]).get(job_id)) is not None:
            shutil.rmtree(spec.staging_dir, ignore_errors=True)

    def take_unneeded(self) -> list[Path]:
        """Folders of jobs that have ended since the last call; the caller removes them, which may take minutes.

        Those that a crash forgets are removed a day later, see ``take_old``.
        """
        taken, self._unneeded = self._unneeded, []
        return taken

    def take_old(self) -> list[str]:
        """Jobs that ended a day ago, each of them once and a few at a time: nothing resumes their checkpoints."""
        latest = self.clock() - KEEP_LEFTOVERS_S
        old: list[str] = []
        while self._unclean and self._unclean[0][0] <= latest and len(old) < _CLEANED_AT_ONCE:
            _, job_id = self._unclean.popleft()
            if job_id in self._ended:
                old.append(job_id)
        return old

    def mark_clean(self, job_ids: Iterable[str]) -> None:
        """Records that the leftovers of ended jobs are removed."""
        clean = {job_id: self._ended[job_id]._replace(is_clean=True) for job_id in job_ids if job_id in self._ended}
        self._ended |= clean
        self._add_to_index(clean.values())

    def _advance(self, record: JobRecord, updates: Sequence[JobUpdate]) -> JobRecord:
        events: list[JobEvent] = []
        for update in updates:
            record = advance(record, update)
            if (event := event_of(update, record)) is not None:
                events.append(event)
                record = replace(record, events=event.id)
            if record.status.is_terminal:
                break  # later lines in the file do not count
        self.store.append_events(record.id, events)
        self.store.write_record(record)
        spec = self._stored(record.id).spec
        self._live[record.id] = StoredJob(spec, record)
        if record.status.is_terminal:
            self._move_to_ended(record)
        if record.status in (JobStatus.FAILED, JobStatus.CANCELLED) and spec is not None:
            self._unneeded.append(spec.staging_dir)
        return record

    def _move_to_ended(self, record: JobRecord) -> None:
        entry = EndedJob(record.id, record.created_at, self.clock())  # a worker's clock may be years off
        self._ended[record.id] = entry
        self._unclean.append((entry.ended_at, entry.id))
        self.cache({record.id: self._live.pop(record.id)})
        self._add_to_index([entry])

    def _add_to_index(self, entries: Iterable[EndedJob]) -> None:
        try:
            self.store.add_ended(list(entries))
        except ServiceError as error:
            logger.warning(_NOT_INDEXED, error.message)
