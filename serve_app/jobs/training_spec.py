"""The specification of a fine-tune: the value behind ``spec.json`` of a job folder.

The service writes it once, at submission, with every default resolved; the training reads nothing else. So a job that
is resumed on another machine, after a restart or under newer settings, is still the same job. See ``jobs.job_folder``
for the file's place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from serve_app.domain import hyperparameters as defaults


class TrainingKind(StrEnum):
    """Kinds of fine-tuning."""

    FULL = "full"
    LORA = "lora"
    QLORA = "qlora"


CLUSTER_VARIABLE = "RETRIEVAL_CLUSTER"
"""Environment variable of a training with the address of the cluster that started it. ``RAY_ADDRESS`` in a Ray Job may
be that of another cluster, the one that was started last on the machine."""

LEASE_VARIABLE = "RETRIEVAL_LEASE_HOLDER"
"""Environment variable of a training with the cluster that held the jobs folder's lease at its start."""

ATTEMPT_VARIABLE = "RETRIEVAL_JOB_ATTEMPT"
"""Environment variable of a training with the number of its attempt, counted from 1."""

NARROWEST_IN_FOUR_BITS = 64
"""Columns of a layer that Q-LoRA can quantise, and what they must be a multiple of: one block of weights."""


def default_learning_rate(kind: TrainingKind) -> float:
    """The peak rate that is used if the client gives none."""
    return defaults.FULL_LEARNING_RATE if kind is TrainingKind.FULL else defaults.ADAPTER_LEARNING_RATE


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters (Hu et al., 2021).

    Attributes:
        r: Rank of the update.
        alpha: Scale of the update; the effective factor is ``alpha / r``.
        dropout: On the adapter's input, 0 to below 1.
    """

    r: int = defaults.LORA_RANK
    alpha: int = defaults.LORA_ALPHA
    dropout: float = defaults.LORA_DROPOUT


@dataclass(frozen=True)
class ClientMetadata:
    """Values that a client of OpenAI's routes sent with its job and that replies repeat; training ignores them.

    Attributes:
        training_file: Id of the uploaded file that the examples are from. It may be deleted: the job has a copy.
        validation_file: The same of the held-out examples.
        metadata: The client's own keys and values.
    """

    training_file: str
    validation_file: str | None = None
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True)
class TrainingSpec:
    """A fine-tune with every default resolved.

    Attributes:
        job_id: The job's id, a UUID; its Ray Jobs are named ``{job_id}-{attempt}``.
        model_name: Name of the result.
        base_model: Served name of the model that is tuned.
        base_folder: Its folder, readable by every worker.
        models_dir: Where the result appears, as ``models_dir/model_name``.
        family: Family of base and result, a key of ``domain.profiles.PROFILES``.
        kind: Full, LoRA or Q-LoRA.
        lora: For the latter two.
        epochs: Passes over the training pairs.
        batch_size: Pairs of one contrastive batch, of all workers together: each pair has ``batch_size - 1``
            in-batch negatives.
        learning_rate: Peak, after warm-up; see ``default_learning_rate``.
        warmup_ratio: Share of the steps in which the rate rises linearly from 0; then it falls linearly to 0.
        max_seq_length: Longest text in tokens, prefix and special tokens included.
        mini_batch_size: Texts of one forward (GradCache); bounds memory, does not change the gradient.
        temperature: Similarities are divided by it in the contrastive loss.
        max_grad_norm: Gradients are clipped to it.
        eval_fraction: Share of the examples that is held out, 0 to 0.5; ignored if ``eval.jsonl`` is there.
        seed: Of the split, the order and the adapters.
        freeze_embeddings: A full fine-tune leaves the word embeddings as they are. They are four fifths of a small
            multilingual model, a few thousand pairs touch few of them, and it trains in half the time and memory.
        gradient_checkpointing: Less memory for about a third more time.
        checkpoint_steps: Steps between two checkpoints.
        num_workers: Ray Train workers.
        cpus_per_worker: CPUs reserved for each.
        gpus_per_worker: GPUs reserved for each; 0 trains on the CPU.
        device: ``auto``, ``cpu`` or ``cuda``.
        origin: Metadata of a job that came by OpenAI's routes.
    """

    job_id: str
    model_name: str
    base_model: str
    base_folder: str
    models_dir: str
    family: str
    kind: TrainingKind = TrainingKind.FULL
    lora: LoraSettings | None = None
    epochs: int = defaults.EPOCHS
    batch_size: int = defaults.BATCH_SIZE
    learning_rate: float = defaults.FULL_LEARNING_RATE
    warmup_ratio: float = defaults.WARMUP_RATIO
    max_seq_length: int = defaults.MAX_SEQ_LENGTH
    mini_batch_size: int = defaults.MINI_BATCH_SIZE
    temperature: float = defaults.TEMPERATURE
    max_grad_norm: float = defaults.MAX_GRAD_NORM
    eval_fraction: float = defaults.EVAL_FRACTION
    seed: int = defaults.SEED
    freeze_embeddings: bool = True
    gradient_checkpointing: bool = False
    checkpoint_steps: int = defaults.CHECKPOINT_STEPS
    num_workers: int = 1
    cpus_per_worker: float = 0.5
    gpus_per_worker: float = 0.0
    device: str = "auto"
    origin: ClientMetadata | None = None

    @property
    def result_dir(self) -> Path:
        """The model folder that the job publishes."""
        return Path(self.models_dir) / self.model_name

    @property
    def staging_dir(self) -> Path:
        """The folder of the unpublished result: on the same file system, under a name that is not a model's."""
        return Path(self.models_dir) / ".staging" / self.job_id

    def to_json(self) -> str:
        """The text of ``spec.json``."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TrainingSpec:
        """Reads ``spec.json``.

        Raises:
            ValueError: It is not JSON, or does not hold the fields of a spec.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("a training spec is a JSON object")
        given = _known(cls, values)
        parts = {
            name: _part(part, values.get(name)) for name, part in (("lora", LoraSettings), ("origin", ClientMetadata))
        }
        return cls(**{**given, **parts, "kind": TrainingKind(values.get("kind", "full"))})


def _part(cls: type, given: Any) -> Any:
    return None if given is None else cls(**_known(cls, given))


def _known(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name for field in fields(cls)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{cls.__name__} has no field {unknown[0]!r}")
    return dict(values)
