"""Bodies of the model routes."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Model(BaseModel):
    """One served model."""

    name: str
    family: str
    dimension: int
    max_tokens: int
    capabilities: list[str] = Field(description="Of dense, sparse, colbert, pair_score.")
    serves: list[str] = Field(description="Of embed, rerank: the routes it is configured for.")
    device: str | None = None
    dtype: str | None = None


class Models(BaseModel):
    """All served models, the default first."""

    models: list[Model]
