"""Schemas of the hybrid routes. Names, defaults and shapes are a contract and may not change."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_app.api.dialects.native.vectorize_schemas import Items
from serve_app.api.dialects.strict_request import EncodingOptions, Text

_COLBERT = "Return the ColBERT vectors, too, one for each token: about 4 KB a token as numbers, more as JSON."


class HybridOptions(EncodingOptions):
    """Options of hybrid requests."""

    return_colbert: bool = Field(False, description=_COLBERT)
    sparse_format: Literal["tokens", "ids"] = Field(
        "tokens",
        description="Sparse weights by the token's text, or as `indices` and `values`, one entry for each token id, as "
        "vector databases take them.",
    )


class HybridRequest(HybridOptions):
    """One text."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "how do I rotate a log file?"}]})

    text: Text


class HybridBatchRequest(HybridOptions):
    """Many texts, in one of three forms."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": ["logrotate rotates log files.", "cron runs jobs."]}]}
    )

    items: Items = Field(description="A list of strings, an object {id: text}, or a list of {id, text}.")


class SparseById(BaseModel):
    """Weights by token id, in the order of the ids; special tokens have none."""

    indices: list[int]
    values: list[float]


class HybridVector(BaseModel):
    """All representations of one text."""

    dense: list[float] = Field(description="L2-normalised.")
    sparse: dict[str, float] | SparseById = Field(description="Weight by token; tokens without weight are left out.")
    colbert: list[list[float]] | None = Field(description="One L2-normalised vector for each token but the first.")


class HybridReply(BaseModel):
    """One text's representations."""

    hybrid_vector: HybridVector


class HybridBatchReply(BaseModel):
    """Representations in the order of the texts, or by id if the texts came with ids."""

    hybrid_vectors: list[HybridVector] | dict[str, HybridVector]
