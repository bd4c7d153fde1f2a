"""Schemas of reranking as Cohere's and Jina's clients request it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from serve_app.api.dialects.field_values import Flag
from serve_app.api.dialects.ranking_schemas import BATCH_DESCRIPTION, RankingOptions, RankingUsage
from serve_app.api.dialects.text_objects import TEXT_SCHEMA, TextOrObject
from serve_app.api.dialects.tolerant_request import names
from serve_app.domain.request_limits import MOST_TEXTS


def _document(value: Any) -> str | dict[str, Any]:
    if isinstance(value, str | dict):
        return value
    raise PydanticCustomError("document_type", "Input should be a valid string, or an object with a text")


Document = Annotated[
    Any,  # an object's other fields are returned unread
    PlainValidator(_document),
    WithJsonSchema({"anyOf": [TEXT_SCHEMA, {"type": "object", "additionalProperties": True}]}),
]


class RerankDocumentsRequest(RankingOptions):
    """A query and its documents; results are sorted by score."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "rotate a log file",
                    "documents": ["logrotate rotates log files.", "cron runs jobs."],
                    "top_n": 1,
                }
            ]
        }
    )

    query: TextOrObject
    documents: list[Document] = Field(
        max_length=MOST_TEXTS,
        validation_alias=names("documents", "passages"),
        description="Texts, or objects with `text`, `content` or `page_content`, or with the `rank_fields`.",
    )
    top_n: int | None = Field(
        None, ge=1, validation_alias=names("top_n", "top_k"), description="Return only the best results."
    )
    rank_fields: Annotated[list[str], Field(min_length=1, max_length=100)] | None = Field(
        None, description="Use these fields of documents that are objects as their text, one line each."
    )
    return_documents: Flag = Field(
        False,
        validation_alias=names("return_documents", "return_text"),
        description="Repeat each document beside its score.",
    )
    batch_size: int = Field(12, ge=1, le=1_000_000, description=BATCH_DESCRIPTION)


class RerankResult(BaseModel):
    """The score of a document."""

    index: int = Field(description="Its index in the request.")
    relevance_score: float
    document: dict[str, Any] | None = None


class RankedIndex(BaseModel):
    """The score of a document, without the document."""

    index: int
    relevance_score: float


class RerankDocumentsReply(BaseModel):
    """The documents, best first."""

    id: str
    object: Literal["rerank"]
    model: str
    results: list[RerankResult]
    data: list[RankedIndex] = Field(description="The same without the documents, for Voyage's clients.")
    usage: RankingUsage
    meta: dict[str, Any]
