"""Request schemas of /v1/fine_tuning/jobs.

Extensions of OpenAI's API: the methods ``lora`` and ``qlora`` with their settings, which its SDK sends unchanged.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from serve_app.api.dialects.native.fine_tune_schemas import ModelName
from serve_app.api.dialects.strict_request import StrictRequest
from serve_app.api.dialects.tolerant_request import TolerantRequest
from serve_app.domain import hyperparameters as defaults


def _or_auto(value: Any) -> Any:
    return None if value == "auto" else value


def _auto(**number: Any) -> tuple[BeforeValidator, WithJsonSchema]:
    """Lets a number also be "auto", which is None from then on; errors name the field, not a branch of a union."""
    words = [{"type": "string", "const": "auto"}, {"type": "null"}]
    return BeforeValidator(_or_auto), WithJsonSchema({"anyOf": [number, *words]})


_AUTO_EPOCHS, _EPOCHS_SCHEMA = _auto(type="integer", minimum=1)
_AUTO_BATCH, _BATCH_SCHEMA = _auto(type="integer", minimum=2)
_AUTO_RATE, _RATE_SCHEMA = _auto(type="number", exclusiveMinimum=0)


class Hyperparameters(StrictRequest):
    """Each may be "auto" or absent."""

    n_epochs: Annotated[int | None, Field(ge=1), _AUTO_EPOCHS, _EPOCHS_SCHEMA] = Field(
        None, description=f"Passes over the data; auto is {defaults.EPOCHS}."
    )
    batch_size: Annotated[int | None, Field(ge=2), _AUTO_BATCH, _BATCH_SCHEMA] = Field(
        None, description=f"Pairs of one batch; each has batch_size - 1 negatives in it. auto is {defaults.BATCH_SIZE}."
    )
    learning_rate_multiplier: Annotated[float | None, Field(gt=0, allow_inf_nan=False), _AUTO_RATE, _RATE_SCHEMA] = (
        Field(None, description="Of the rate that suits the method; auto is 1.")
    )


class LoraHyperparameters(Hyperparameters):
    """The same, and the shape of the adapters (extension)."""

    r: int = Field(defaults.LORA_RANK, ge=1, description="Rank of the adapters.")
    lora_alpha: int = Field(
        defaults.LORA_ALPHA, ge=1, description="Their scale; the effective factor is lora_alpha / r."
    )
    lora_dropout: float = Field(
        defaults.LORA_DROPOUT, ge=0, lt=1, allow_inf_nan=False, description="On the adapters' input."
    )


class SupervisedMethod(StrictRequest):
    """Settings of the method `supervised`."""

    hyperparameters: Hyperparameters | None = None


class LoraMethod(StrictRequest):
    """Settings of the methods `lora` and `qlora`."""

    hyperparameters: LoraHyperparameters | None = None


class Method(StrictRequest):
    """The fine-tuning method; its settings stand under its name."""

    type: Literal["supervised", "lora", "qlora"] = Field(
        description="supervised: all weights. Extensions: lora, an adapter; qlora, an adapter on a base in 4 bits."
    )
    supervised: SupervisedMethod | None = None
    lora: LoraMethod | None = None
    qlora: LoraMethod | None = None


class FineTuningJobRequest(TolerantRequest):
    """A fine-tune from uploaded files."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "multilingual-e5-small", "training_file": "file-abc", "suffix": "my"}]
        }
    )

    model: str = Field(description="A served name: the base.")
    training_file: str = Field(description="Id of an uploaded file.")
    validation_file: str | None = Field(
        None, description="Id of another one, only to measure on; without it a tenth of the examples is held out."
    )
    suffix: ModelName | None = Field(
        None, description="The result's whole name here; without it, the base's name, -ft- and eight digits."
    )
    seed: int | None = Field(
        None, ge=0, lt=2**32, description="Seed of the split and the order; the same seed repeats both."
    )
    hyperparameters: Hyperparameters | None = Field(None, description="In place of those in `method`.")
    method: Method | None = Field(None, description="All weights, if absent.")
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None = Field(
        None, max_length=16, description="Metadata of the client, repeated in replies."
    )
    integrations: list[dict[str, Any]] | None = Field(None, max_length=0, description="Not supported; must be empty.")
