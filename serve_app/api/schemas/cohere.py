"""Bodies of the routes that Cohere's clients speak, but for reranking, which is in ``rerank``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_app.api.schemas.native import Request, Text
from serve_app.domain.limits import MOST_TEXTS

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
InputType = Literal["search_query", "search_document", "classification", "clustering"]
Truncate = Literal["NONE", "END"]

_INPUT_TYPE = "Documents are read as passages; queries, and texts to classify or cluster, as queries."
_TYPES = "int8 is round(127 x), uint8 that plus 128; ubinary as numpy.packbits."
_TRUNCATE = "Cut texts over the model's token limit at their end, or refuse them."


class CohereTexts(Request):
    """What the requests of both versions have in common."""

    model: str | None = Field(None, description="A served name; the default model if absent.")
    texts: Annotated[list[Text], Field(max_length=MOST_TEXTS, json_schema_extra={"minItems": 1})]


class CohereEmbedRequest(CohereTexts):
    """Texts, what they are for, and the forms that their vectors are wanted in."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"texts": ["cron runs jobs."], "input_type": "search_document"}]}
    )

    input_type: InputType = Field(description=_INPUT_TYPE)
    embedding_types: list[EmbeddingType] = Field(["float"], min_length=1, description=_TYPES)
    output_dimension: int | None = Field(
        None, ge=1, description="Give only the first so many numbers of each vector, L2-normalised again."
    )
    truncate: Truncate = Field("END", description=_TRUNCATE)


class CohereV1EmbedRequest(CohereTexts):
    """As the v2 request, but nearly everything may be left out, or be null."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"texts": ["cron runs jobs."]}]})

    input_type: InputType | None = Field(None, description=_INPUT_TYPE + " If absent, passages.")
    embedding_types: Annotated[list[EmbeddingType], Field(min_length=1)] | None = Field(
        None, description=_TYPES + " If absent, the vectors are a plain list of numbers."
    )
    truncate: Truncate | None = Field(None, description=_TRUNCATE + " If absent, END.")


class CohereEmbeddings(BaseModel):
    """The vectors in each form that was asked for, in the order of the texts."""

    model_config = ConfigDict(populate_by_name=True)

    float_: list[list[float]] | None = Field(None, alias="float")
    int8: list[list[int]] | None = None
    uint8: list[list[int]] | None = None
    binary: list[list[int]] | None = None
    ubinary: list[list[int]] | None = None
    base64: list[str] | None = None


class CohereEmbedReply(BaseModel):
    """Vectors, texts and what it cost."""

    id: str
    response_type: Literal["embeddings_by_type"]
    model: str
    embeddings: CohereEmbeddings
    texts: list[str]
    meta: dict[str, Any]


class CohereV1EmbedReply(BaseModel):
    """Vectors, texts and what it cost; a plain list of vectors unless the request named types."""

    id: str
    response_type: Literal["embeddings_floats", "embeddings_by_type"]
    model: str
    embeddings: list[list[float]] | CohereEmbeddings
    texts: list[str]
    meta: dict[str, Any]
