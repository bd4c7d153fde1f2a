"""A fake jobs service: it trains nothing and records its calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from serve_app.api.jobs_protocol import ParsedFineTune
from serve_app.domain.errors import ConflictError, JobNotFoundError
from serve_app.jobs.job_events import JobEvent
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.training_spec import TrainingSpec, default_learning_rate
from serve_app.jobs.upload_store import UploadStore


class FakeJobs:
    """Implements ``api.jobs_protocol.JobsProtocol``.

    Attributes:
        uploads: The real store, in a folder of the test's; by default in one that can not be.
        error: Raised by every call while it is set.
        script: What becomes of a job each time somebody asks for it; then it stays.
    """

    def __init__(self, folder: Path = Path("/dev/null")) -> None:
        self.uploads = UploadStore(folder)
        self.asked: dict[str, TrainingSpec] = {}
        self.requests: list[ParsedFineTune] = []
        self.records: dict[str, JobRecord] = {}
        self.diary: list[JobEvent] = []
        self.script: list[JobRecord | Exception] = []
        self.picture: str | None = None
        self.error: Exception | None = None

    async def submit(self, request: ParsedFineTune) -> JobRecord:
        self._answer()
        self.requests.append(request)
        record = JobRecord(
            f"job-{len(self.requests)}", request.model_name, request.base_model or "default-e5", request.kind, 1000.0,
            accepted=len(request.examples), ignored=request.ignored,
        )  # fmt: skip
        self.records[record.id] = record
        self.asked[record.id] = TrainingSpec(
            record.id, request.model_name, record.base_model, "/models/base", "/models", "e5", request.kind,
            request.lora, request.epochs, request.batch_size,
            request.learning_rate or default_learning_rate(request.kind),
            origin=request.origin,
        )  # fmt: skip
        return record

    async def get(self, job_id: str) -> JobRecord:
        if self.script:
            if isinstance(answer := self.script.pop(0), Exception):
                raise answer
            self.records[job_id] = answer
        return self._find(job_id)

    async def specs(self, job_ids: Sequence[str]) -> Mapping[str, TrainingSpec]:
        self._answer()
        return {job_id: self.asked[job_id] for job_id in job_ids if job_id in self.asked}

    async def page(self, *, limit: int, after: str | None) -> Sequence[JobRecord]:
        newest_first = list(reversed(self.records.values()))
        start = newest_first.index(self._find(after)) + 1 if after else 0
        return newest_first[start : start + limit]

    async def live(self) -> Sequence[JobRecord]:
        return [record for record in self.records.values() if not record.status.is_terminal]

    async def cancel(self, job_id: str) -> JobRecord:
        self.records[job_id] = replace(self._find(job_id), status=JobStatus.CANCELLED)
        return self.records[job_id]

    async def delete(self, job_id: str) -> None:
        if not self._find(job_id).status.is_terminal:
            raise ConflictError("cancel it first")
        del self.records[job_id]

    async def events(self, job_id: str, *, after: int) -> Sequence[JobEvent]:
        self._find(job_id)
        return [note for note in self.diary if note.id > after]

    async def logs(self, job_id: str) -> str:
        return f"logs of {self._find(job_id).id}"

    async def loss_curve(self, job_id: str) -> str | None:
        self._find(job_id)
        return self.picture

    def _find(self, job_id: str) -> JobRecord:
        self._answer()
        if job_id not in self.records:
            raise JobNotFoundError("Job not found")
        return self.records[job_id]

    def _answer(self) -> None:
        if self.error is not None:
            raise self.error
