"""Jobs and uploads as the fine-tuning routes call them; tests replace them by fakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from serve_app.domain import hyperparameters as defaults
from serve_app.jobs.job_events import JobEvent
from serve_app.jobs.job_record import JobRecord
from serve_app.jobs.training_pairs import Example
from serve_app.jobs.training_spec import ClientMetadata, LoraSettings, TrainingKind, TrainingSpec
from serve_app.jobs.upload_record import Upload


@dataclass(frozen=True)
class ParsedFineTune:
    """A validated request for a fine-tune; the service's settings decide what is None.

    Attributes:
        model_name: Name of the result; validated.
        kind: Full, LoRA or Q-LoRA.
        examples: At least two, with a negative for each.
        ignored: Lines of the client's data that were left out.
        held_out: Examples to measure on; without any, ``eval_fraction`` of the others is held out.
        base_model: A served name.
        lora: For LoRA and Q-LoRA.
        epochs: Passes over the data.
        batch_size: Pairs of one contrastive batch, at least 2.
        learning_rate: Peak.
        max_seq_length: Tokens.
        eval_fraction: 0 to 0.5.
        seed: Of the split, the order and the adapters.
        origin: Metadata from a client of OpenAI's routes, for its replies.
        has_generated_name: The client gave no name.
    """

    model_name: str
    kind: TrainingKind
    examples: Sequence[Example]
    ignored: int = 0
    held_out: Sequence[Example] = ()
    base_model: str | None = None
    lora: LoraSettings | None = None
    epochs: int = defaults.EPOCHS
    batch_size: int = defaults.BATCH_SIZE
    learning_rate: float | None = None
    max_seq_length: int | None = None
    eval_fraction: float = defaults.EVAL_FRACTION
    seed: int | None = None
    origin: ClientMetadata | None = None
    has_generated_name: bool = False


class Uploads(Protocol):
    """The uploaded files. Every method blocks on the disk, so it is called in a thread, and may raise ``StorageError``.

    Methods that take a file's id raise ``UploadNotFoundError`` if there is no such file.
    """

    def create(self, source: BinaryIO, filename: str) -> Upload:
        """Keeps a file with the data of another one."""
        ...

    def get(self, file_id: str) -> Upload:
        """A file's record."""
        ...

    def page(self, *, limit: int, after: str | None, newest_first: bool) -> Sequence[Upload]:
        """At most ``limit`` files in the order of their creation, those behind the file ``after``."""
        ...

    def open(self, file_id: str) -> BinaryIO:
        """A file's data, to be closed."""
        ...

    def delete(self, file_id: str) -> None:
        """Removes a file; an open one can still be read to its end."""
        ...


class JobsProtocol(Protocol):
    """The jobs behind the routes; every method may raise a ``ServiceError``, ``UnavailableError`` above all.

    Methods that take a job's id raise ``JobNotFoundError`` if there is no such job.
    """

    @property
    def uploads(self) -> Uploads:
        """Files that jobs can be made from."""
        ...

    async def submit(self, request: ParsedFineTune) -> JobRecord:
        """Stores a job; it is started as soon as there is room.

        With a generated name, an identical request within a minute is the same job.

        Raises:
            ModelNotFoundError: There is no such base model.
            InvalidInputError: The base model cannot be fine-tuned.
            CapabilityError: It cannot be fine-tuned by Q-LoRA.
            ConflictError: The result's name is taken.
            JobsReadOnlyError: Another service manages the jobs.
            QueueFullError: Too many jobs have not ended.
            StorageError: It cannot be written.
        """
        ...

    async def get(self, job_id: str) -> JobRecord:
        """The job as it is now."""
        ...

    async def specs(self, job_ids: Sequence[str]) -> Mapping[str, TrainingSpec]:
        """Specs by job id, without those of jobs that are gone and those that cannot be read."""
        ...

    async def page(self, *, limit: int, after: str | None) -> Sequence[JobRecord]:
        """At most ``limit`` jobs, newest first, those that are older than the job ``after``."""
        ...

    async def live(self) -> Sequence[JobRecord]:
        """Jobs that have not ended, oldest first, whichever service has them trained."""
        ...

    async def cancel(self, job_id: str) -> JobRecord:
        """Stops a job within ten seconds.

        Raises:
            IllegalTransitionError: It has ended.
            JobsReadOnlyError: Another service manages the jobs.
        """
        ...

    async def delete(self, job_id: str) -> None:
        """Removes a job that has ended; its result stays.

        Raises:
            ConflictError: It has not ended.
            JobsReadOnlyError: Another service manages the jobs.
        """
        ...

    async def events(self, job_id: str, *, after: int) -> Sequence[JobEvent]:
        """The job's events behind the one with the id ``after``."""
        ...

    async def logs(self, job_id: str) -> str:
        """The output of its processes."""
        ...

    async def loss_curve(self, job_id: str) -> str | None:
        """The loss curve as SVG, if it has been drawn."""
        ...
