"""All settings, typed and frozen; an unknown one is refused, because a typo must not be silent.

Precedence: environment over YAML (``args:`` of the application in the serve config) over default. The
environment holds only what one changes from run to run; ``ENVIRONMENT`` is the whole list.

Annotations here are evaluated at import: Ray Serve reads the type of the app builder's parameter.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from serve_app.domain.request_limits import Limits
from serve_app.settings.security_settings import SecuritySettings
from serve_app.settings.training_settings import TrainingSettings

Auto = Literal["auto"]

_MISSING: Mapping[str, Any] = {"models": [{}], "training": {}}  # what they are where the YAML says nothing of them

ENVIRONMENT: Mapping[str, str] = {
    "MODEL_NAME": "models.0.name",
    "MODEL_FAMILY": "models.0.family",
    "MODEL_DEVICE": "models.0.device",
    "MODEL_DTYPE": "models.0.dtype",
    "MODELS_DIR": "models_dir",
    "JOBS_DIR": "training.jobs_dir",
}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class DeploymentSettings(_Frozen):
    """How many replicas a deployment has and what each gets; the words are Ray Serve's own.

    Attributes:
        num_replicas: Fixed number, unless ``autoscaling_config`` is given.
        autoscaling_config: Ray Serve's, for example ``{min_replicas: 1, max_replicas: 4,
            target_ongoing_requests: 32}``.
        num_cpus: CPUs reserved for a replica. A reservation, not a cap: small numbers leave room for
            training on a small machine.
        max_ongoing_requests: Calls that a replica works on at once. The encoder orders and bounds its
            work itself, in tokens, so this should be far above the number of clients.
        max_surge_percent: New replicas that a redeploy starts before it stops old ones, in percent of the running
            ones, rounded up. ``auto``: if a node has room for one more replica, 100 for one or two replicas and 25
            for more; else 0, so that each replica stops before the new one starts, which the start log says. A number
            is taken as it is: without room the redeploy waits, and the old replicas serve on.
        max_replicas_per_node: Replicas that one node may hold, so that its death leaves the others. A replica that
            finds no node waits for one. ``auto``: half of the replicas if at least two nodes can hold one, no limit
            on a single machine; with autoscaling more, if ``max_replicas`` needs it. null: no limit. During a
            redeploy old and new replicas are counted separately.
    """

    num_replicas: int = Field(default=1, ge=1)
    autoscaling_config: dict[str, Any] | None = None
    num_cpus: float = Field(default=0.1, ge=0)
    max_ongoing_requests: int = Field(default=2000, ge=1)
    max_surge_percent: Annotated[int, Field(ge=0, le=100)] | Auto = "auto"
    max_replicas_per_node: Annotated[int, Field(ge=1, le=100)] | Auto | None = "auto"

    @property
    def least_replicas(self) -> int:
        """The number of replicas that there always are."""
        return int((self.autoscaling_config or {"min_replicas": self.num_replicas}).get("min_replicas", 1))

    @property
    def most_replicas(self) -> int:
        """The largest number of replicas there can be."""
        return int((self.autoscaling_config or {}).get("max_replicas", self.num_replicas))


class BatchingSettings(_Frozen):
    """Bounds of the encoder's micro-batches and backlog, in tokens.

    Attributes:
        max_batch_tokens: Padded tokens in one forward. ``auto``: 384 on a CPU, where small
            micro-batches are as fast and keep others from waiting; 16,384 on a GPU.
        max_padding_tokens: Padding that one text may add to a micro-batch. ``auto``: 16 on a CPU, 1,024
            on a GPU: about what a forward costs before its first token.
        max_batch_seconds: Longest duration of a forward with several texts. Where a micro-batch of
            ``max_batch_tokens`` would take longer at the measured speed, it is made smaller.
        max_backlog_tokens: Waiting tokens of one replica beyond which the service answers 429.
        min_tokens_per_s: A forward that has run for over two minutes and is slower than this counts as hung, and its
            replica is replaced. ``auto``: 2 on a CPU, where a large model needs minutes for a text of 8,192 tokens,
            and more on shared cores; 100 on a GPU.
    """

    max_batch_tokens: Annotated[int, Field(ge=1)] | Auto = "auto"
    max_padding_tokens: Annotated[int, Field(ge=0)] | Auto = "auto"
    max_batch_seconds: float = Field(default=2.0, gt=0)
    max_backlog_tokens: int = Field(default=500_000, ge=1)
    min_tokens_per_s: Annotated[float, Field(gt=0)] | Auto = "auto"

    def for_device(self, device: str) -> tuple[int, int]:
        """``max_batch_tokens`` and ``max_padding_tokens``, ``auto`` resolved for ``cpu`` or ``cuda``."""
        batch, padding = (16_384, 1_024) if device.startswith("cuda") else (384, 16)
        return (
            batch if self.max_batch_tokens == "auto" else self.max_batch_tokens,
            padding if self.max_padding_tokens == "auto" else self.max_padding_tokens,
        )

    def slowest_for_device(self, device: str) -> float:
        """``min_tokens_per_s``, ``auto`` resolved likewise."""
        slowest = 100.0 if device.startswith("cuda") else 2.0
        return slowest if self.min_tokens_per_s == "auto" else self.min_tokens_per_s


class ModelSettings(DeploymentSettings):
    """One served model and its encoder deployment.

    Attributes:
        name: The folder ``models_dir/name`` if it exists, else that name on the model hub.
        aliases: Further names for the same model, such as one that clients have built in.
        family: ``e5``, ``e5-instruct`` or ``bge-m3``, where neither the name nor the manifest says it.
        device: ``auto``, ``cpu`` or ``cuda``. A replica sees only the GPU that it has a share of.
        dtype: ``auto`` is bfloat16 where the hardware computes in it, else float32.
        num_gpus: GPUs of each replica, fractions allowed. ``auto``: ``gpu_share`` if the cluster has
            GPUs when the application is built, else none. Set a number if GPU nodes join later. Without a share
            the device ``auto`` is the CPU.
        gpu_share: GPUs of each replica with ``num_gpus: auto``.
        threads: Torch threads of each replica. ``auto``: as its CPUs allow.
        batching: Bounds of micro-batches and backlog.
        dense_only: Serves a BGE-M3 without its sparse and ColBERT heads.
        max_fine_tunes_gib: Memory that a replica may use for fine-tunes beside its own model. Adapters take
            megabytes, whole fine-tunes as much as the model; the least recently used ones are unloaded first.
    """

    name: str = "intfloat/multilingual-e5-large"
    aliases: tuple[str, ...] = ()
    family: str | None = None
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    num_gpus: Annotated[float, Field(ge=0)] | Auto = "auto"
    gpu_share: float = Field(default=0.5, gt=0)
    threads: Annotated[int, Field(ge=1)] | Auto = "auto"
    batching: BatchingSettings = BatchingSettings()
    dense_only: bool = False
    max_fine_tunes_gib: float = Field(default=4.0, ge=0)

    @field_validator("aliases")
    @classmethod
    def _are_names(cls, aliases: tuple[str, ...]) -> tuple[str, ...]:
        for alias in aliases:
            if not alias or not alias.isprintable() or any(map(str.isspace, alias)):
                raise ValueError(f"{alias!r} cannot be the name of a model: use a word without blanks")
        return aliases

    @property
    def max_fine_tunes_bytes(self) -> int:
        """The same in bytes."""
        return int(self.max_fine_tunes_gib * 2**30)


class RerankerSettings(ModelSettings):
    """One reranker and its deployment: a model copy and a GPU share of its own.

    Attributes:
        kind: ``colbert`` scores with the token vectors of a BGE-M3; ``cross-encoder`` reads query and candidate
            together (``BAAI/bge-reranker-v2-m3`` and its kind).
    """

    name: str = "BAAI/bge-m3"
    kind: Literal["colbert", "cross-encoder"] = "colbert"

    @model_validator(mode="before")
    @classmethod
    def _kind_says_the_family(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("kind") == "cross-encoder":
            return {"family": "cross-encoder", **values}
        return values

    @model_validator(mode="after")
    def _scores_something(self) -> "RerankerSettings":
        if self.dense_only:
            raise ValueError(f"the reranker {self.name!r} can not be dense_only")
        return self


class IngressSettings(DeploymentSettings):
    """The HTTP replicas.

    Attributes:
        max_ongoing_requests: Requests that a replica works on at once, those that are still being read included. It
            is above the 4,096 connections of HAProxy, because requests that wait in HAProxy use memory that none
            of these settings bounds.
    """

    max_ongoing_requests: int = Field(default=5000, ge=1)


class Settings(_Frozen):
    """The arguments of the application ``serve_app.app:build``.

    Attributes:
        models_dir: Folder of model folders; relative to the working directory of the service.
        models: Embedding models; the first one with the requested representation is the default.
        rerankers: Models that score candidates for a query; the first one is the default. May be empty.
        ingress: The HTTP replicas: they parse, tokenise and answer, and need no GPU.
        limits: Bounds of a request.
        training: Fine-tuning.
        security: API keys, and the web pages that may call the service.
    """

    models_dir: Path = Field(default=Path("models"), validate_default=True)
    models: tuple[ModelSettings, ...] = (ModelSettings(),)
    rerankers: tuple[RerankerSettings, ...] = ()
    ingress: IngressSettings = IngressSettings()
    limits: Limits = Limits()
    training: TrainingSettings = TrainingSettings()
    security: SecuritySettings = Field(default_factory=SecuritySettings)  # when called: it reads the environment

    @model_validator(mode="before")
    @classmethod
    def _environment_wins(cls, values: Any) -> Any:
        return overlay(values, os.environ) if isinstance(values, dict) else values

    @field_validator("models_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("models")
    @classmethod
    def _at_least_one(cls, models: tuple[ModelSettings, ...]) -> tuple[ModelSettings, ...]:
        if not models:
            raise ValueError("name at least one model")
        return models

    @field_validator("models", "rerankers")
    @classmethod
    def _distinct_names(cls, models: tuple[ModelSettings, ...]) -> tuple[ModelSettings, ...]:
        names = [model.name for model in models]
        if len(set(names)) < len(names):
            raise ValueError(f"every model needs a name of its own, but these are configured: {', '.join(names)}")
        return models

    @model_validator(mode="after")
    def _distinct_aliases(self) -> "Settings":
        configured = (*self.models, *self.rerankers)
        names = {model.name for model in configured}
        owners: dict[str, str] = {}
        for model in configured:
            for alias in model.aliases:
                if alias in names:
                    raise ValueError(f"aliases: {alias!r} of {model.name!r} is the name of a configured model")
                if owners.setdefault(alias, model.name) != model.name:
                    raise ValueError(f"aliases: {alias!r} is given to {owners[alias]!r} and to {model.name!r}")
        return self

    @property
    def aliases(self) -> dict[str, str]:
        """The model of each alias, of encoders and rerankers."""
        return {alias: model.name for model in (*self.models, *self.rerankers) for alias in model.aliases}


def overlay(values: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The YAML values with what the environment says put over them; empty variables count as unset.

    Values that are no settings at all are left as they are: whoever validates them says what is wrong.
    """
    merged: Any = dict(values)
    for variable, path in ENVIRONMENT.items():
        if value := environment.get(variable):
            merged = _with(merged, path.split("."), value)
    return dict(merged)


def _with(values: Any, path: Sequence[str], value: str) -> Any:
    """A copy of nested values with one of them put in, unless there is no such place."""
    if not path:
        return value
    first, rest = path[0], path[1:]
    if isinstance(values, Mapping):
        return {**values, first: _with(values.get(first, _MISSING.get(first)), rest, value)}
    if isinstance(values, Sequence) and values and first == "0":
        return [_with(values[0], rest, value), *values[1:]]
    return values
