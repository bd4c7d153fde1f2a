"""Reply schemas of /v1/fine_tuning/jobs; fields beyond OpenAI's API are marked as extensions."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from serve_app.api.dialects.native.fine_tune_schemas import IgnoredLine


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


class JobHyperparameters(BaseModel):
    """The values of the job; null if its folder cannot be read."""

    n_epochs: int | None
    batch_size: int | None
    learning_rate_multiplier: float | None


class JobLoraHyperparameters(JobHyperparameters):
    """The same, with the shape of the adapters."""

    r: int | None
    lora_alpha: int | None
    lora_dropout: float | None


class JobSupervised(BaseModel):
    """Of the method `supervised`."""

    hyperparameters: JobHyperparameters


class JobLora(BaseModel):
    """Of the methods `lora` and `qlora`."""

    hyperparameters: JobLoraHyperparameters


class JobMethod(BaseModel):
    """The fine-tuning method; its settings stand under its name."""

    type: Literal["supervised", "lora", "qlora"]
    supervised: JobSupervised | None = None
    lora: JobLora | None = None
    qlora: JobLora | None = None


class FineTuningJob(BaseModel):
    """A job; times are Unix times in whole seconds."""

    id: str
    object: Literal["fine_tuning.job"]
    created_at: int
    finished_at: int | None
    estimated_finish: int | None = Field(description="Of the training; publishing comes after it.")
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    model: str = Field(description="The base.")
    fine_tuned_model: str | None = Field(description="The name to use, once the job has succeeded.")
    organization_id: str
    training_file: str | None = Field(description="Null for a job of another route.")
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None = Field(description="Not counted: null.")
    seed: int | None
    hyperparameters: JobHyperparameters
    method: JobMethod
    metadata: dict[str, str] | None
    error: JobError | None
    accepted: int = Field(description="Extension: examples that are used.")
    ignored: int = Field(description="Extension: lines that are not.")


class NewFineTuningJob(FineTuningJob):
    """A job that was stored just now."""

    ignored_lines: list[IgnoredLine] = Field(description="Extension: the first lines that are not used, and why.")


class FineTuningJobs(BaseModel):
    """One page of jobs, newest first."""

    object: Literal["list"]
    data: list[FineTuningJob]
    has_more: bool


class FineTuningEvent(BaseModel):
    """One event of a job."""

    id: str
    object: Literal["fine_tuning.job.event"]
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message"]


class FineTuningEvents(BaseModel):
    """One page of a job's events, newest first."""

    object: Literal["list"]
    data: list[FineTuningEvent]
    has_more: bool


class FineTuningCheckpoint(BaseModel):
    """The last checkpoint of a job, or its result."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"]
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str | None = Field(
        description="The result's name. Null for a checkpoint, which cannot be served."
    )
    step_number: int
    metrics: dict[str, float] = Field(
        description="`step`; of the result also `train_loss` and its retrieval on the held-out examples."
    )


class FineTuningCheckpoints(BaseModel):
    """At most one."""

    object: Literal["list"]
    data: list[FineTuningCheckpoint]
    has_more: bool
    first_id: str | None
    last_id: str | None
