"""Bodies of the hybrid routes. Names, defaults and shapes are a contract and may not change."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from serve_app.api.schemas.native import EncodingOptions, Items, Text

_COLBERT = "Also give the ColBERT vectors, one for each token: about 4 KB a token as numbers, more as JSON."


class HybridRequest(EncodingOptions):
    """One text."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "how do I rotate a log file?"}]})

    text: Text
    return_colbert: bool = Field(False, description=_COLBERT)


class HybridBatchRequest(EncodingOptions):
    """Many texts, in one of three forms."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": ["logrotate rotates log files.", "cron runs jobs."]}]}
    )

    items: Items = Field(description="A list of strings, an object {id: text}, or a list of {id, text}.")
    return_colbert: bool = Field(False, description=_COLBERT)


class HybridVector(BaseModel):
    """All representations of one text."""

    dense: list[float] = Field(description="L2-normalised.")
    sparse: dict[str, float] = Field(description="Weight by token; tokens without weight are left out.")
    colbert: list[list[float]] | None = Field(description="One L2-normalised vector for each token but the first.")


class HybridReply(BaseModel):
    """One text's representations."""

    hybrid_vector: HybridVector


class HybridBatchReply(BaseModel):
    """Representations in the order of the texts, or by id if the texts came with ids."""

    hybrid_vectors: list[HybridVector] | dict[str, HybridVector]
