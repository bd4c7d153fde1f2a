"""Schemas of /v1/embeddings and /v1/models."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_app.api.dialects.text_or_ids_schemas import Inputs
from serve_app.api.dialects.tolerant_options import TolerantEmbeddingOptions
from serve_app.api.dialects.tolerant_request import names


class EmbeddingsRequest(TolerantEmbeddingOptions):
    """One text or several, as text or as token ids of the model's own vocabulary."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"input": ["cron runs jobs.", "logrotate rotates logs."]}]}
    )

    input: Inputs = Field(
        description="A text, a list of texts, a list of token ids or a list of such lists. Token ids are used "
        "unchanged: they must include prefix and special tokens, and are refused without the latter."
    )
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="Numbers, or the base64 text of little-endian float32."
    )
    output_dtype: Literal["float", "int8", "uint8", "binary", "ubinary", "base64"] = Field(
        "float",
        validation_alias=names("output_dtype", "embedding_type"),
        description="Encoding of the numbers. int8: round(127 x), uint8: that plus 128; ubinary: as numpy.packbits, "
        "binary: that minus 128. base64: as the encoding_format of this name.",
    )
    user: str | None = Field(None, description="Accepted and ignored.")


class Embedding(BaseModel):
    """One text's vector."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="Numbers, or the base64 text of their little-endian bytes.")


class EmbeddingsUsage(BaseModel):
    """Token counts, prefixes and special tokens included."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsReply(BaseModel):
    """Vectors in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage


class OpenAIModel(BaseModel):
    """One served model."""

    id: str
    object: Literal["model"]
    created: int = Field(description="Of a fine-tune: when, in Unix seconds; else 0.")
    owned_by: str
    parent: str | None = Field(description="Of a fine-tune: the model that was tuned.")


class OpenAIModelDeleted(BaseModel):
    """The fine-tune is deleted."""

    id: str
    object: Literal["model"]
    deleted: Literal[True]


class OpenAIModels(BaseModel):
    """All served models: the default first, the other configured ones, fine-tunes."""

    object: Literal["list"]
    data: list[OpenAIModel]
