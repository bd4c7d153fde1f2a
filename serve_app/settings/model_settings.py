"""Settings of one served model: an encoder or a reranker."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from serve_app.settings.batching_settings import BatchingSettings
from serve_app.settings.deployment_settings import DeploymentSettings
from serve_app.settings.frozen_settings import Auto


class ModelSettings(DeploymentSettings):
    """One served model and its encoder deployment.

    Attributes:
        name: The folder ``models_dir/name`` if it exists, else that name on the model hub.
        aliases: Further names for the same model, such as one that clients have built in.
        family: ``e5``, ``e5-instruct`` or ``bge-m3``, where neither the name nor the manifest says it.
        device: ``auto``, ``cpu`` or ``cuda``. A replica sees only the GPU that it has a share of. ``auto`` is that GPU,
            and the CPU for a replica without a share; a share whose GPU PyTorch cannot use fails at the start.
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
    def _require_names(cls, aliases: tuple[str, ...]) -> tuple[str, ...]:
        for alias in aliases:
            if not alias or not alias.isprintable() or any(map(str.isspace, alias)):
                raise ValueError(f"{alias!r} cannot be the name of a model: use a word without blanks")
        return aliases

    @property
    def max_fine_tunes_bytes(self) -> int:
        """``max_fine_tunes_gib`` in bytes."""
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
    def _infer_family(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("kind") == "cross-encoder":
            return {"family": "cross-encoder", **values}
        return values

    @model_validator(mode="after")
    def _require_token_vectors(self) -> "RerankerSettings":
        if self.dense_only:
            raise ValueError(f"the reranker {self.name!r} cannot be dense_only: it scores with token vectors")
        return self
