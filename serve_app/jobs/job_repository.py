"""All jobs, always the same as on the disk: what is not written has not happened."""

from __future__ import annotations

import json
import logging
import os
import shutil
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from serve_app.domain.errors import ConflictError, JobNotFoundError, ServiceError, StorageError
from serve_app.jobs.ended_index import EndedJob
from serve_app.jobs.job_events import JobEvent, event_of
from serve_app.jobs.job_folders import JobFolders, StoredJob, TrainingData
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.job_states import advance
from serve_app.jobs.job_updates import JobUpdate, UpdateType
from serve_app.jobs.training_spec import TrainingSpec, cleanup_dirs, staging_folder

logger = logging.getLogger(__name__)

KEEP_LEFTOVERS_S = 24 * 3600.0
_CLEANED_AT_ONCE = 20
_REMEMBERED = 1000  # ended jobs in memory, a few kilobytes each
_STALE_ENTRIES = 100  # of the index, which are not worth its being rewritten


class JobRepository:
    """Records by id: in memory those that have not ended, of the others an entry, and the folder when one is asked for.

    Blocks on the disk; every change is one call without a pause, so that nobody sees half of it.
    """

    def __init__(
        self,
        store: JobFolders,
        clock: Callable[[], float],
        *,
        writes: bool = True,
        earlier: JobRepository | None = None,
    ) -> None:
        """Lists the job folders; opens those that have not ended, or are not known to have.

        Args:
            store: The folders.
            clock: Unix time in seconds.
            writes: Whether this tracker holds the lease; then it keeps the index of ended jobs.
            earlier: Read from the same folders before; what had ended then has ended.

        Raises:
            JobsReadOnlyError: The lease was lost meanwhile.
            StorageError: The folders can not be read.
        """
        self.store = store
        self.clock = clock
        self._kept: dict[str, StoredJob] = {}  # in memory, oldest first
        self._read: dict[str, StoredJob] = {}  # of ended ones, the last few
        known: dict[str, EndedJob] = store.ended.read() if earlier is None else dict(earlier._ended)
        listed = store.job_ids()
        self._ended: dict[str, EndedJob] = {job_id: known[job_id] for job_id in listed if job_id in known}
        if earlier is not None:  # what the holder of the lease has deleted since is not there any more
            self._read = {job_id: job for job_id, job in earlier._read.items() if job_id in self._ended}
        found = [job for job_id in listed if job_id not in known and (job := store.read(job_id)) is not None]
        for job in sorted(found, key=lambda job: (job.record.created_at, job.record.id)):
            self._file(job)
        self._order = sorted(
            [(entry.created_at, entry.id) for entry in self._ended.values()]
            + [(job.record.created_at, job.record.id) for job in self._kept.values()]
        )
        self._unclean = deque(sorted((job.ended_at, job.id) for job in self._ended.values() if not job.is_clean))
        self._unneeded: list[Path] = []
        if writes:
            self._keep_index(known)

    def _file(self, job: StoredJob) -> None:
        """Puts a job where it belongs: one that can not be read is looked at again by the next tracker."""
        if job.is_readable and job.record.status.is_terminal:
            self._ended[job.record.id] = EndedJob.of_record(job.record)
        else:
            self._kept[job.record.id] = job

    def _keep_index(self, known: Mapping[str, EndedJob]) -> None:
        try:
            if len(known) > 2 * len(self._ended) + _STALE_ENTRIES:
                self.store.rewrite_ended(list(self._ended.values()))
            else:
                self.store.add_ended([entry for job_id, entry in self._ended.items() if job_id not in known])
        except StorageError as error:  # the next start reads their folders
            logger.warning("the index of ended jobs can not be written: %s", error.message)

    def __contains__(self, job_id: object) -> bool:
        """Whether there is a job with this id."""
        return job_id in self._kept or job_id in self._ended

    def get(self, job_id: str) -> JobRecord:
        """The record as it is now.

        Raises:
            JobNotFoundError: There is no such job.
        """
        return self._job(job_id).record

    def spec(self, job_id: str) -> TrainingSpec:
        """What the job was asked to do; there for every job that has not ended."""
        spec = self._job(job_id).spec
        if spec is None:
            raise KeyError(job_id)
        return spec

    def specs(self, job_ids: Iterable[str]) -> dict[str, TrainingSpec]:
        """What jobs were asked to do, by id; without those that are gone or whose spec can not be read."""
        found = {}
        for job_id in job_ids:
            with suppress(JobNotFoundError):
                if (spec := self._job(job_id).spec) is not None:
                    found[job_id] = spec
        return found

    def _job(self, job_id: str) -> StoredJob:
        if (job := self._kept.get(job_id) or self._read.get(job_id)) is not None:
            return job
        if job_id in self._ended:
            self.remember({job_id: self.store.read(job_id)})
            if (job := self._kept.get(job_id) or self._read.get(job_id)) is not None:
                return job
        raise JobNotFoundError("Job not found")

    def live(self) -> list[JobRecord]:
        """Jobs that have not ended, oldest first."""
        return [job.record for job in self._kept.values() if not job.record.status.is_terminal]

    def since(self, time: float) -> list[JobRecord]:
        """Jobs that were created at this time, in Unix seconds, or later; oldest first."""
        return [self.get(job_id) for _, job_id in self._order[bisect_left(self._order, (time, "")) :]]

    def page(self, *, limit: int, after: str | None) -> list[str]:
        """Ids of jobs, newest first.

        Args:
            limit: At most so many.
            after: Only those that are older than the job with this id.

        Raises:
            JobNotFoundError: There is no job ``after``.
        """
        end = len(self._order) if after is None else bisect_left(self._order, (self._created_at(after), after))
        return [job_id for _, job_id in reversed(self._order[max(end - limit, 0) : end])]

    def unread(self, job_ids: Iterable[str]) -> list[str]:
        """Those whose folder must be opened to tell more than their id."""
        return [job_id for job_id in job_ids if job_id not in self._kept and job_id not in self._read]

    def remember(self, jobs: Mapping[str, StoredJob | None]) -> None:
        """Takes what was read of ended jobs; None for one that is gone."""
        for job_id, job in jobs.items():
            if job is None:
                self.forget(job_id)
            elif not job.record.status.is_terminal:  # the index was wrong: the folder is the truth
                self._ended.pop(job_id, None)
                self._kept[job_id] = job
            else:
                self._read[job_id] = job
        while len(self._read) > _REMEMBERED:
            del self._read[next(iter(self._read))]

    def _created_at(self, job_id: str) -> float:
        if job_id in self._ended:
            return self._ended[job_id].created_at
        return self.get(job_id).created_at

    # ------------------------------------------------------------------ changes

    def require_free_name(self, spec: TrainingSpec) -> None:
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
        self._kept[spec.job_id] = StoredJob(spec, record)
        insort(self._order, (record.created_at, record.id))

    def forget(self, job_id: str) -> None:
        """The counterpart of ``enter``."""
        with suppress(JobNotFoundError, ValueError):
            self._order.remove((self._created_at(job_id), job_id))
        for jobs in (self._kept, self._read):
            jobs.pop(job_id, None)
        self._ended.pop(job_id, None)

    def apply(self, job_id: str, type_: UpdateType, **data: object) -> JobRecord:
        """Something happened to a job, now.

        Raises:
            IllegalTransitionError: It can not happen to a job in this state.
            StorageError: It could not be written, so it has not happened.
        """
        return self._advance(self.get(job_id), [JobUpdate(type_, self.clock(), data)])

    def wait(self, record: JobRecord, reason: str | None) -> None:
        """Notes what a job waits for, if that has changed; None if for nothing any more."""
        if reason != record.pending_reason:
            self.apply(record.id, UpdateType.WAITING, reason=reason)

    def fold(self, job_id: str, *, ignoring: Collection[UpdateType] = ()) -> JobRecord:
        """Takes in what the training has said since the last time.

        Args:
            job_id: The job.
            ignoring: Types of updates that do not count now.

        Raises:
            StorageError: It could not be read or written; the next call starts at the same place.
        """
        record = self.get(job_id)
        while not record.status.is_terminal:
            lines, offset = self.store.tail_training(job_id, record.read_bytes)
            if offset == record.read_bytes:
                break
            now = self.clock()
            said = [event for line in lines if (event := JobUpdate.of_line(line, now=now)) is not None]
            record = self._advance(
                replace(record, read_bytes=offset), [event for event in said if event.type not in ignoring]
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
        record = self.apply(job_id, UpdateType.DONE)
        self._unneeded += cleanup_dirs(self.spec(job_id), self.store.folder(job_id))
        return record

    def remove_staged(self, job_id: str) -> None:
        """Removes what a job that has ended had written of its result: it is as large as a model, and nobody's."""
        if (spec := self.specs([job_id]).get(job_id)) is not None:
            shutil.rmtree(staging_folder(spec), ignore_errors=True)

    def take_unneeded(self) -> list[Path]:
        """Folders of jobs that have ended since the last call, to be removed apart: that may take minutes.

        Those that are forgotten in a crash are removed a day later, see ``take_old``.
        """
        taken, self._unneeded = self._unneeded, []
        return taken

    def _advance(self, record: JobRecord, updates: Sequence[JobUpdate]) -> JobRecord:
        events: list[JobEvent] = []
        for update in updates:
            record = advance(record, update)
            if (event := event_of(update, record)) is not None:
                events.append(event)
                record = replace(record, events=event.id)
            if record.status.is_terminal:
                break  # the end is the end, whatever stands behind it in the file
        self.store.append_events(record.id, events)
        self.store.write(record)
        self._kept[record.id] = StoredJob(self._job(record.id).spec, record)
        if record.status.is_terminal:
            self._add_ended(record)
        if record.status in (JobStatus.FAILED, JobStatus.CANCELLED):
            self._unneeded += [staging_folder(spec) for spec in self.specs([record.id]).values()]
        return record

    def _add_ended(self, record: JobRecord) -> None:
        entry = EndedJob(record.id, record.created_at, self.clock())  # what a worker's clock said may be years away
        self._ended[record.id] = entry
        self._unclean.append((entry.ended_at, entry.id))
        self.remember({record.id: self._kept.pop(record.id)})
        self._index([entry])

    def _index(self, entries: Sequence[EndedJob]) -> None:
        try:
            self.store.add_ended(entries)
        except ServiceError as error:  # the next start reads their folders
            logger.warning("the index of ended jobs can not be written: %s", error.message)

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
        """Notes that the leftovers of ended jobs are removed."""
        clean = {job_id: self._ended[job_id]._replace(is_clean=True) for job_id in job_ids if job_id in self._ended}
        self._ended |= clean
        self._index(list(clean.values()))
