"""All jobs of a jobs folder by id, for reading."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from contextlib import suppress

from serve_app.domain.errors import JobNotFoundError
from serve_app.jobs.ended_index import EndedJob
from serve_app.jobs.job_folder_readers import StoredJob, read_job
from serve_app.jobs.job_folders import JobFolders
from serve_app.jobs.job_record import JobRecord
from serve_app.jobs.training_spec import TrainingSpec

_CACHED_JOBS = 1000  # ended jobs in memory, a few kilobytes each


class JobIndex:
    """Jobs in order of creation: those that have not ended in memory, of the others an entry and the last few read.

    Blocks on the disk; every change is one call without an ``await``, so that no other task sees half of it.
    """

    def __init__(self, store: JobFolders, *, earlier: JobIndex | None = None) -> None:
        """Lists the job folders; opens those that have not ended, or are not known to have.

        Args:
            store: The folders.
            earlier: Index of the same folders; a job that had ended in it has ended.

        Raises:
            StorageError: The folders cannot be read.
        """
        self.store = store
        self._live: dict[str, StoredJob] = {}  # oldest first; also those whose folder cannot be read
        self._cached: dict[str, StoredJob] = {}  # ended ones
        known: dict[str, EndedJob] = store.ended.read() if earlier is None else dict(earlier._ended)
        listed = store.job_ids()
        self._known_ended = known
        self._ended: dict[str, EndedJob] = {job_id: known[job_id] for job_id in listed if job_id in known}
        if earlier is not None:  # what the holder of the lease has deleted since is not listed any more
            self._cached = {job_id: job for job_id, job in earlier._cached.items() if job_id in self._ended}
        found = [self.store.folder(job_id) for job_id in listed if job_id not in known]
        stored = [job for folder in found if (job := read_job(folder)) is not None]
        for job in sorted(stored, key=lambda job: (job.record.created_at, job.record.id)):
            self._sort_in(job)
        self._order = sorted(
            [(entry.created_at, entry.id) for entry in self._ended.values()]
            + [(job.record.created_at, job.record.id) for job in self._live.values()]
        )

    def _sort_in(self, job: StoredJob) -> None:
        """Puts a job where it belongs; the next tracker opens again one that cannot be read."""
        if job.is_readable and job.record.status.is_terminal:
            self._ended[job.record.id] = EndedJob.of_record(job.record)
        else:
            self._live[job.record.id] = job

    def __contains__(self, job_id: object) -> bool:
        """True for the id of a job."""
        return job_id in self._live or job_id in self._ended

    def get(self, job_id: str) -> JobRecord:
        """The record as it is now.

        Raises:
            JobNotFoundError: There is no such job.
        """
        return self._stored(job_id).record

    def spec(self, job_id: str) -> TrainingSpec:
        """The spec of a job that has not ended; each of them has one."""
        spec = self._stored(job_id).spec
        if spec is None:
            raise KeyError(job_id)
        return spec

    def specs(self, job_ids: Iterable[str]) -> dict[str, TrainingSpec]:
        """Specs by job id, without those of jobs that are gone and those that cannot be read."""
        found = {}
        for job_id in job_ids:
            with suppress(JobNotFoundError):
                if (spec := self._stored(job_id).spec) is not None:
                    found[job_id] = spec
        return found

    def live(self) -> list[JobRecord]:
        """Jobs that have not ended, oldest first."""
        return [job.record for job in self._live.values() if not job.record.status.is_terminal]

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

    def uncached(self, job_ids: Iterable[str]) -> list[str]:
        """Jobs whose folder must be opened to know more than their id."""
        return [job_id for job_id in job_ids if job_id not in self._live and job_id not in self._cached]

    def cache(self, jobs: Mapping[str, StoredJob | None]) -> None:
        """Keeps what was read of ended jobs; None for one that is gone."""
        for job_id, job in jobs.items():
            if job is None:
                self.remove(job_id)
            elif not job.record.status.is_terminal:  # the index was wrong: the folder is the truth
                self._ended.pop(job_id, None)
                self._live[job_id] = job
            else:
                self._cached[job_id] = job
        while len(self._cached) > _CACHED_JOBS:
            del self._cached[next(iter(self._cached))]

    def add(self, spec: TrainingSpec, record: JobRecord) -> None:
        """Adds a job whose folder was created."""
        self._live[spec.job_id] = StoredJob(spec, record)
        insort(self._order, (record.created_at, record.id))

    def remove(self, job_id: str) -> None:
        """Removes a job whose folder is gone."""
        with suppress(JobNotFoundError, ValueError):
            self._order.remove((self._created_at(job_id), job_id))
        for jobs in (self._live, self._cached):
            jobs.pop(job_id, None)
        self._ended.pop(job_id, None)

    def _stored(self, job_id: str) -> StoredJob:
        if (job := self._live.get(job_id) or self._cached.get(job_id)) is not None:
            return job
        if job_id in self._ended:
            self.cache({job_id: read_job(self.store.folder(job_id))})
            if (job := self._live.get(job_id) or self._cached.get(job_id)) is not None:
                return job
        raise JobNotFoundError("Job not found")

    def _created_at(self, job_id: str) -> float:
        if job_id in self._ended:
            return self._ended[job_id].created_at
        return self.get(job_id).created_at
