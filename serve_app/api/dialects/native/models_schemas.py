"""Schemas of the model routes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class Model(BaseModel):
    """One served model."""

    name: str
    family: str
    dimension: int
    max_tokens: int
    capabilities: list[str] = Field(description="dense, sparse, colbert, pair_score.")
    serves: list[str] = Field(description="The uses it is configured for: embed, rerank.")
    device: str | None = None
    dtype: str | None = None
    base: str | None = Field(None, description="Of a fine-tune: the model that was tuned.")
    kind: str | None = Field(None, description="Of a fine-tune: full, lora or qlora.")
    created: str | None = Field(None, description="Of a fine-tune: when.")
    metrics: dict[str, dict[str, float]] | None = Field(
        None, description="Of a fine-tune: retrieval on held-out pairs, before and after."
    )
    pooling: str | None = Field(None, description="How token states become its vector: mean or cls.")
    alias_of: str | None = Field(None, description="The name of the model that this is another name for.")
    max_backlog_tokens: int | None = Field(
        None, description="Tokens that may wait for one of its replicas; a request beyond it gets 429."
    )
    max_batch_tokens: int | None = Field(None, description="Padded tokens of one forward.")


class ListedModel(BaseModel):
    """One served model in infinity's form."""

    id: str
    object: Literal["model"]
    created: int = Field(description="Of a fine-tune: when, in Unix seconds; else 0.")
    parent: str | None = Field(description="Of a fine-tune: the model that was tuned.")
    stats: dict[str, Any]
    backend: str
    capabilities: list[str]


class Models(BaseModel):
    """All served models: the default first, the other configured ones, fine-tunes."""

    object: Literal["list"]
    models: list[Model]
    data: list[ListedModel] = Field(description="The same in the form of other services' clients.")
