"""Schemas of the fine-tuning and job routes.

Pydantic checks the types; what depends on settings or needs a message of its own (limits, data without pairs) is
checked in ``serve_app.api.fine_tune_parsing``.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SkipValidation

from serve_app.api.dialects.strict_request import StrictRequest
from serve_app.api.field_patterns import MODEL_NAME
from serve_app.domain import hyperparameters as defaults

_LINES = "how do I rotate a log file?\tlogrotate rotates log files.\nhow do I run a job at night?\tcron runs jobs.\n"

ModelName = Annotated[
    str,
    Field(
        pattern=MODEL_NAME,
        description="Name of the result, which is served under it: a letter or digit, then up to 99 of A-Za-z0-9._-",
    ),
]


class TrainingExample(StrictRequest):
    """A query with passages that answer it and, perhaps, passages that do not."""

    query: str
    pos: list[str] = Field(description="Passages that answer the query, at least one.")
    neg: list[str] = Field([], description="Passages that do not; other queries' passages serve as negatives anyway.")


class FineTuneRequest(StrictRequest):
    """A fine-tune of all weights."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model_name": "my-e5", "text_content": _LINES}]})

    model_name: ModelName
    text_content: str | None = Field(
        None, description="Lines of query, tab, passage; others are ignored and reported. This, or `examples`."
    )
    examples: list[SkipValidation[TrainingExample]] | None = Field(  # any JSON; validated in ``fine_tune_parsing``
        None, description="Training data as a list of examples, with negatives or without; instead of `text_content`."
    )
    eval_text_content: str | None = Field(
        None, description="Lines like those of `text_content`, only to measure on; then nothing else is held out."
    )
    base_model: str | None = Field(None, description="A served name; the default model if absent.")
    epochs: int = Field(defaults.EPOCHS, ge=1, description="Passes over the data.")
    batch_size: int = Field(
        defaults.BATCH_SIZE, description="Pairs of one batch; each has batch_size - 1 negatives in it."
    )
    learning_rate: float | None = Field(
        None, gt=0, le=1, allow_inf_nan=False, description="Peak; if absent, one that suits the kind of fine-tune."
    )
    max_seq_length: int | None = Field(
        None, ge=8, description="Tokens of a text that are trained on and measured with."
    )
    eval_fraction: float = Field(
        defaults.EVAL_FRACTION,
        ge=0,
        le=0.5,
        allow_inf_nan=False,
        description="Share of the examples that quality is measured on.",
    )
    seed: int | None = Field(
        None, ge=0, lt=2**32, description="Seed of the split and the order; the same seed repeats both."
    )


class FineTuneLoraRequest(FineTuneRequest):
    """A fine-tune of small adapters on frozen weights."""

    r: int = Field(defaults.LORA_RANK, ge=1, description="Rank of the adapters.")
    lora_alpha: int = Field(
        defaults.LORA_ALPHA, ge=1, description="Scale of the adapters; the effective factor is lora_alpha / r."
    )
    lora_dropout: float = Field(
        defaults.LORA_DROPOUT, ge=0, lt=1, allow_inf_nan=False, description="Dropout on the adapters' input."
    )
    use_qlora: bool = Field(True, description="Keep the frozen weights in 4 bits: less memory.")


class IgnoredLine(BaseModel):
    """An ignored line, or example, with its number from 1 and the reason."""

    line: int
    reason: str


class FineTuneReply(BaseModel):
    """The job was stored and will be started as soon as there is room."""

    job_id: str
    status: str
    model_name: str
    base_model: str
    accepted: int = Field(description="Examples that are used.")
    ignored: int = Field(description="Number of ignored lines.")
    ignored_lines: list[IgnoredLine] = Field(description="The first ignored lines, with reasons.")


class FineTuneLoraReply(FineTuneReply):
    """Reply to a LoRA fine-tune: the job was stored and will be started as soon as there is room."""

    type: str


class Job(BaseModel):
    """A job as it is now; times are Unix times in seconds."""

    job_id: str
    status: str = Field(description="pending, running, completed, failed or cancelled.")
    progress: float = Field(description="Percent; never falls.")
    message: str = Field(description="The current step or the outcome; names a result that is worse than its base.")
    error: str | None = Field(description="Why it failed.")
    pending_reason: str | None = Field(description="What a pending job waits for.")
    type: str = Field(description="full or lora.")
    kind: str = Field(description="full, lora or qlora.")
    model_name: str
    base_model: str
    steps: int
    total_steps: int | None
    epoch: float
    loss: float | None
    learning_rate: float | None
    seconds_left: float | None
    tokens_per_second: float | None
    metrics_before: dict[str, float] | None = Field(
        description="Of the base, on the held-out examples; `sparse_` and `colbert_` are of those heads."
    )
    metrics_after: dict[str, float] | None = Field(description="Of the result.")
    warning: str | None = Field(description="What to know about the result, such as that its vectors have collapsed.")
    accepted: int
    ignored: int
    train_pairs: int | None
    eval_pairs: int | None
    device: str | None
    attempts: int = Field(description="Number of starts; more than one if a process or node died.")
    created_at: float
    started_at: float | None
    ended_at: float | None


class JobList(BaseModel):
    """One page of jobs, newest first."""

    jobs: list[Job]
    has_more: bool = Field(description="Whether `after` with the id of the last job finds more.")


class JobEntry(BaseModel):
    """One event of a job."""

    id: int
    time: float
    level: str
    message: str


class JobEvents(BaseModel):
    """The events of a job, oldest first."""

    events: list[JobEntry]


class JobDeleted(BaseModel):
    """The job is deleted; the model it made stays."""

    job_id: str
    deleted: bool
