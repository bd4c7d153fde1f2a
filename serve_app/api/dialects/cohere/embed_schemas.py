"""Schemas of /v1/embed and /v2/embed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from serve_app.api.dialects.text_objects import OBJECT_SCHEMA, TEXT_SCHEMA, ForeignText, texts_of
from serve_app.api.dialects.tolerant_options import TolerantEmbeddingOptions
from serve_app.api.dialects.tolerant_request import names
from serve_app.domain.request_limits import MOST_TEXTS

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]

_TYPES = "int8 is round(127 x), uint8 that plus 128; ubinary as numpy.packbits, binary that minus 128."
_PARTS_SCHEMA = {
    "type": "object",
    "properties": {
        "content": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                "required": ["type", "text"],
            },
            "minItems": 1,
        }
    },
    "required": ["content"],
}
_TEXTS_SCHEMA = {
    "type": "array",
    "items": {"anyOf": [TEXT_SCHEMA, OBJECT_SCHEMA, _PARTS_SCHEMA]},
    "minItems": 1,
    "maxItems": MOST_TEXTS,
}


class CohereEmbedRequest(TolerantEmbeddingOptions):
    """Texts, their purpose, and the encodings of their vectors."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"texts": ["cron runs jobs."], "input_type": "search_document"}]}
    )

    texts: Annotated[
        list[ForeignText],
        Field(max_length=MOST_TEXTS),
        BeforeValidator(texts_of, json_schema_input_type=Annotated[Any, WithJsonSchema(_TEXTS_SCHEMA)]),
    ] = Field(
        validation_alias=names("texts", "inputs"), description="Texts; `inputs` may also be objects with text parts."
    )
    embedding_types: Annotated[list[EmbeddingType], Field(min_length=1)] | None = Field(
        None, description=_TYPES + " If absent, v2 gives floats by type, v1 a plain list of vectors."
    )


class CohereEmbeddings(BaseModel):
    """The vectors in each requested encoding, in the order of the texts."""

    model_config = ConfigDict(populate_by_name=True)

    float_: list[list[float]] | None = Field(None, alias="float")
    int8: list[list[int]] | None = None
    uint8: list[list[int]] | None = None
    binary: list[list[int]] | None = None
    ubinary: list[list[int]] | None = None
    base64: list[str] | None = None


class CohereEmbedReply(BaseModel):
    """Vectors, texts and token counts."""

    id: str
    response_type: Literal["embeddings_by_type"]
    model: str
    embeddings: CohereEmbeddings
    texts: list[str]
    meta: dict[str, Any]


class CohereV1EmbedReply(BaseModel):
    """Vectors, texts and token counts; a plain list of vectors unless the request named types."""

    id: str
    response_type: Literal["embeddings_floats", "embeddings_by_type"]
    model: str
    embeddings: list[list[float]] | CohereEmbeddings
    texts: list[str]
    meta: dict[str, Any]
