"""The record of a fine-tuning job: the content of ``job.json``, and the source of replies about the job.

A record changes by ``job_states.advance`` only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from enum import StrEnum
from functools import cache
from typing import Any

from serve_app.jobs.training_spec import TrainingKind, TrainingSpec


class JobStatus(StrEnum):
    """Status of a job; the values are part of the wire contract."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """True if the job has ended; then its record never changes again."""
        return self in {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}


Metrics = Mapping[str, float]
_KEYS = {"failed_attempts": "fruitless", "last_heartbeat_at": "heard_at"}  # fields with another key in ``job.json``


@dataclass(frozen=True)
class JobRecord:
    """A job at one moment.

    Attributes:
        id: A UUID; also the name of the job's folder.
        model_name: Name of the result.
        base_model: Served name of the model that is tuned.
        kind: Full, LoRA or Q-LoRA.
        created_at: Unix time in seconds, as all times here.
        accepted: Examples it trains and is measured on.
        ignored: Lines of the client's data that were left out.
        status: Its status.
        progress: Percent, 0 to 100; never falls, not even when training resumes at an earlier step.
        message: A sentence for people about its present state, or how it ended.
        error: The reason of a failure.
        pending_reason: The resource or event that a pending job waits for.
        stopping: The reason why the tracker stops its Ray Job, until that has ended.
        submission_id: Id of its present Ray Job; None if it has none.
        attempts: Ray Jobs started so far, this one included.
        failed_attempts: Attempts in a row that were lost without reaching a new checkpoint; see ``retry_policy``.
        interruptions: The same for those that were under way when the whole cluster was restarted.
        checkpoint: Last step that can be resumed from.
        checkpoint_at: When it was there.
        steps: Optimiser steps done.
        total_steps: Steps there will be; known once training has started.
        epoch: Passes over the data, with decimals.
        loss: Of the last step that was reported.
        learning_rate: At that step.
        seconds_left: Estimate until training ends; publishing comes after it.
        tokens_per_second: Of all workers together.
        train_pairs: Examples that are trained on.
        eval_pairs: Examples that are held out.
        device: ``cpu`` or ``cuda``.
        metrics_before: Retrieval quality of the base on the held-out examples, by name of the measure.
        metrics_after: The same of the result.
        warning: Warning for users of the result of a job that has not failed.
        published: True once the result is served as ``model_name``.
        started_at: When training first started.
        ended_at: When the status became terminal.
        last_heartbeat_at: Time of the training's latest update, by its own clock, or of its start.
        read_bytes: Bytes of ``training.jsonl`` that are folded into this record.
        events: Number of entries in ``events.jsonl``.
    """

    id: str
    model_name: str
    base_model: str
    kind: TrainingKind
    created_at: float
    accepted: int = 0
    ignored: int = 0
    status: JobStatus = JobStatus.PENDING
    progress: float = 0.0
    message: str = "queued"
    error: str | None = None
    pending_reason: str | None = None
    stopping: str | None = None
    submission_id: str | None = None
    attempts: int = 0
    failed_attempts: int = 0
    interruptions: int = 0
    checkpoint: int = 0
    checkpoint_at: float | None = None
    steps: int = 0
    total_steps: int | None = None
    epoch: float = 0.0
    loss: float | None = None
    learning_rate: float | None = None
    seconds_left: float | None = None
    tokens_per_second: float | None = None
    train_pairs: int | None = None
    eval_pairs: int | None = None
    device: str | None = None
    metrics_before: Metrics | None = None
    metrics_after: Metrics | None = None
    warning: str | None = None
    published: bool = False
    started_at: float | None = None
    ended_at: float | None = None
    last_heartbeat_at: float | None = None
    read_bytes: int = 0
    events: int = 0

    @classmethod
    def of_spec(cls, spec: TrainingSpec, *, created_at: float, accepted: int, ignored: int) -> JobRecord:
        """The record of a new job."""
        return cls(
            spec.job_id, spec.model_name, spec.base_model, spec.kind, created_at, accepted=accepted, ignored=ignored
        )

    @property
    def type(self) -> str:
        """``full`` or ``lora``, the wire's word; a quantised base is still LoRA."""
        return "full" if self.kind is TrainingKind.FULL else "lora"

    def to_json(self) -> str:
        """The text of ``job.json``."""
        values = {_KEYS.get(name, name): value for name, value in asdict(self).items()}
        return json.dumps(values, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> JobRecord:
        """Reads ``job.json``; fields of a newer version are left aside.

        Raises:
            ValueError: It is not JSON, lacks a field or holds a value of the wrong type.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("a job record is a JSON object")
        known = {}
        for field in fields(cls):
            if (key := _KEYS.get(field.name, field.name)) in values:
                known[field.name] = _checked(key, str(field.type), values[key])
            elif field.default is MISSING:
                raise ValueError(f"the field {field.name!r} is missing")
        return cls(**known)


_JSON_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "Metrics": (dict,),
    "None": (type(None),),
}
_ENUMS: Mapping[str, type[StrEnum]] = {"JobStatus": JobStatus, "TrainingKind": TrainingKind}


@cache
def _kinds(annotation: str) -> tuple[type, ...]:
    return tuple(kind for word in annotation.split(" | ") for kind in _JSON_TYPES[word])


def _checked(name: str, annotation: str, value: Any) -> Any:
    """The value, if it is of the annotated type: a file may hold anything, and a record is trusted."""
    if annotation in _ENUMS:
        return _ENUMS[annotation](value)
    allowed = _kinds(annotation)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise ValueError(f"the field {name!r} cannot be {value!r}")
    return value
