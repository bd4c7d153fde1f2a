"""Bodies of the routes that OpenAI's clients speak."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_app.api.schemas.inputs import Inputs
from serve_app.api.schemas.native import EncodingOptions

InputType = Literal["query", "passage"]


class EmbeddingsRequest(EncodingOptions):
    """One text or several, as text or as token ids of the model's own vocabulary."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"input": ["cron runs jobs.", "logrotate rotates logs."]}]}
    )

    input: Inputs = Field(
        description="A text, a list of texts, a list of token ids or a list of such lists. Token ids are taken as "
        "they are: the client has put prefix and special tokens there, and without the latter they are refused."
    )
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="Numbers, or the base64 text of little-endian float32."
    )
    dimensions: int | None = Field(
        None, ge=1, description="Give only the first so many numbers of each vector, L2-normalised again."
    )
    input_type: InputType | None = Field(
        None, description="Ours: what the texts are for; passage if absent. Not for token ids."
    )
    user: str | None = Field(None, description="Taken from OpenAI's clients and not needed.")


class Embedding(BaseModel):
    """One text's vector."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(BaseModel):
    """What it cost, prefixes and special tokens included."""

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


class OpenAIModels(BaseModel):
    """All served models: the default first, the other configured ones, fine-tunes."""

    object: Literal["list"]
    data: list[OpenAIModel]
