"""Fine-tuning jobs as clients use them: submit, read, cancel, delete. The cluster is a ``RayJobs``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from serve_app.domain.errors import ConflictError, IllegalTransitionError, QueueFullError, UnavailableError
from serve_app.jobs.job_events import JobEvent
from serve_app.jobs.job_folder_readers import TrainingData, read_data, read_events, read_job, read_logs, read_loss_curve
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.job_repository import JobRepository
from serve_app.jobs.job_updates import UpdateType
from serve_app.jobs.leased_jobs import LeasedJobs
from serve_app.jobs.training_spec import TrainingSpec

_DUPLICATE_WINDOW_S = 60.0  # a proxy repeats a request at once; a later one means another job


class JobService(LeasedJobs):
    """All fine-tuning jobs of a service.

    Methods that take a job's id raise ``JobNotFoundError`` if there is no such job. Methods that change a job raise
    ``JobsReadOnlyError`` if another service manages the jobs, and ``StorageError`` if the change cannot be written.
    """

    async def submit(
        self, spec: TrainingSpec, data: TrainingData, *, accepted: int, ignored: int, has_generated_name: bool = False
    ) -> JobRecord:
        """Stores a job. The same job twice is one job, so that a caller may ask again.

        Args:
            spec: The job's spec.
            data: Its examples.
            accepted: Number of examples.
            ignored: Number of the client's lines that are not among them.
            has_generated_name: The client gave no name, so an identical request within a minute is the same job. With
                a name of the client's own it is a conflict that names the first job.

        Raises:
            ConflictError: The name is taken.
            QueueFullError: Too many jobs have not ended.
        """
        await self._readable()
        async with self._submit_lock:
            repository, _ = self._require_managed()
            if spec.job_id in repository:
                return repository.get(spec.job_id)
            if has_generated_name and (same := await self._find_duplicate(repository, spec, data)) is not None:
                return same
            repository.require_free_name(spec)
            if len(repository.live()) >= self._policy.max_waiting_jobs:
                raise QueueFullError(
                    f"{self._policy.max_waiting_jobs} fine-tunes are queued or running already", retry_after_s=60.0
                )
            record = JobRecord.of_spec(spec, created_at=repository.clock(), accepted=accepted, ignored=ignored)
            await asyncio.to_thread(repository.store.create, spec, data, record)
            repository.add(spec, record)
            return record

    async def _find_duplicate(
        self, repository: JobRepository, spec: TrainingSpec, data: TrainingData
    ) -> JobRecord | None:
        """The job of an identical request: a proxy repeats one if the HTTP replica dies before it answers."""
        for record in repository.since(repository.clock() - _DUPLICATE_WINDOW_S):
            if record.status in (JobStatus.FAILED, JobStatus.CANCELLED):
                continue  # a client that repeats the request then wants another attempt
            known = repository.specs([record.id]).get(record.id)
            if known is None or known != replace(spec, job_id=known.job_id, model_name=known.model_name):
                continue
            if record.status is JobStatus.COMPLETED and not repository.is_published(record.id):
                continue  # its model was deleted
            if await asyncio.to_thread(read_data, repository.store.folder(record.id)) == data:
                return repository.get(record.id)
        return None

    async def get(self, job_id: str) -> JobRecord:
        """The job as it is now."""
        return (await self._readable()).get(job_id)

    async def specs(self, job_ids: Sequence[str]) -> Mapping[str, TrainingSpec]:
        """Specs by job id, without those of jobs that are gone and those that cannot be read."""
        return (await self._readable()).specs(job_ids)

    async def page(self, *, limit: int, after: str | None = None) -> Sequence[JobRecord]:
        """Jobs, newest first; ``after`` is the id of the last one of the page before."""
        index = await self._readable()
        ids = index.page(limit=limit, after=after)
        if uncached := index.uncached(ids):
            folders = {job_id: index.store.folder(job_id) for job_id in uncached}
            index.cache(await asyncio.to_thread(lambda: {id: read_job(folder) for id, folder in folders.items()}))
        return [index.get(job_id) for job_id in ids if job_id in index]

    async def live(self) -> Sequence[JobRecord]:
        """Jobs that have not ended, oldest first."""
        return (await self._readable()).live()

    async def cancel(self, job_id: str) -> JobRecord:
        """Stops a job within ten seconds; its checkpoints stay and its name is free. May be called twice.

        Raises:
            IllegalTransitionError: It has ended another way, perhaps just now.
        """
        repository, reconciler = await self._writable()
        repository.get(job_id)
        reconciler.interrupt_start(job_id)
        async with reconciler.locks[job_id]:
            record = repository.get(job_id)
            if record.status is JobStatus.CANCELLED:
                return record
            if not record.status.is_terminal and record.submission_id is not None:
                await reconciler.stop(record.submission_id)
                await reconciler.keep_log(record)
                record = repository.fold(job_id, ignoring={UpdateType.FAILED})  # a failure now is due to the stop
                if not record.status.is_terminal and repository.is_published(job_id):
                    record = repository.complete(job_id)
            if record.status.is_terminal:
                raise IllegalTransitionError(f"the job is {record.status} and cannot be cancelled any more")
            record = repository.apply(job_id, UpdateType.CANCELLED)
            await self._remove_unneeded(repository)
            return record

    async def delete(self, job_id: str) -> None:
        """Removes a job that has ended, with its data and checkpoints; its result stays.

        Raises:
            ConflictError: It has not ended.
        """
        repository, reconciler = await self._writable()
        repository.get(job_id)
        async with reconciler.locks[job_id]:
            record = repository.get(job_id)
            if not record.status.is_terminal:
                raise ConflictError(f"the job is {record.status}; cancel it before you delete it")
            await asyncio.to_thread(repository.store.delete, job_id)
            await asyncio.to_thread(repository.remove_staged, job_id)  # by an attempt that did not stop
            repository.remove(job_id)

    async def events(self, job_id: str, *, after: int = 0) -> Sequence[JobEvent]:
        """The job's events behind the one with the id ``after``, in order."""
        index = await self._readable()
        return [] if index.get(job_id).events <= after else read_events(index.store.folder(job_id), after=after)

    async def logs(self, job_id: str) -> str:
        """The output of the job's processes: earlier attempts' from the job's folder, the last one's from Ray."""
        index = await self._readable()
        record = index.get(job_id)
        logs = await asyncio.to_thread(read_logs, index.store.folder(job_id))
        if self._managed is not None and record.submission_id is not None and not record.status.is_terminal:
            try:
                logs[f"ray-{record.attempts}"] = await self._ray_jobs.logs(record.submission_id)
            except UnavailableError as error:
                logs[f"ray-{record.attempts}"] = error.message
        return "\n".join(f"==> {name} <==\n{text}" for name, text in logs.items() if text)

    async def loss_curve(self, job_id: str) -> str | None:
        """The loss curve as SVG; None until the training has drawn it."""
        index = await self._readable()
        index.get(job_id)
        return read_loss_curve(index.store.folder(job_id))
