"""Bodies of the rerank routes: our own, the one that Cohere's and Jina's clients speak, and TEI's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, PlainValidator, Tag, WithJsonSchema
from pydantic_core import PydanticCustomError

from serve_app.api.dialects.foreign_fields import (
    TEXT_SCHEMA,
    ComputeRequest,
    Flag,
    ForeignText,
    MaxTokens,
    TextOrObject,
    TolerantOptions,
    texts_of,
)
from serve_app.api.dialects.native.vectorize_schemas import EncodingOptions, Text
from serve_app.api.dialects.tolerant_request import NOTHING, names
from serve_app.api.error_bodies import rerank_dialect
from serve_app.domain.request_limits import MOST_TEXTS

_BATCH = "Candidates in one forward, at most."
_NORMALIZE = (
    "Late interaction: the mean over query tokens of the best match's cosine (false: their sum). "
    "Cross-encoder: the sigmoid of the logit (false: the logit)."
)


class RerankRequest(EncodingOptions):
    """A query and its candidates; scores come back in their order."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "rotate a log file", "candidates": ["logrotate rotates log files.", "cron runs jobs."]}
            ]
        }
    )

    query: Text
    candidates: list[Text] = Field(max_length=MOST_TEXTS)
    batch_size: int = Field(12, ge=1, le=1_000_000, description=_BATCH)
    normalize: bool = Field(True, description=_NORMALIZE)


def _document(value: Any) -> str | dict[str, Any]:
    if isinstance(value, str | dict):
        return value
    raise PydanticCustomError("document_type", "Input should be a valid string, or an object with a text")


Document = Annotated[
    Any,  # what an object has beside its text is given back and not read
    PlainValidator(_document),
    WithJsonSchema({"anyOf": [TEXT_SCHEMA, {"type": "object", "additionalProperties": True}]}),
]


class RankingOptions(TolerantOptions):
    """What every ranking request of other services' clients may also say."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **ComputeRequest.unsupported,
        **dict.fromkeys(("candidates", "documents", "passages", "texts"), NOTHING),
        **dict.fromkeys(("score_threshold", "top_n", "top_k"), ()),
        **dict.fromkeys(("return_documents", "return_text"), NOTHING),
        "rank_fields": NOTHING,
    }

    max_tokens: MaxTokens = Field(
        None,
        validation_alias=names("max_tokens_per_doc", "truncate_prompt_tokens", "max_tokens"),
        description="Longest document in tokens; longer ones are cut. -1 for the model's own limit.",
    )
    max_query_tokens: MaxTokens = Field(
        None,
        validation_alias=names("max_tokens_per_query", "max_query_tokens"),
        description="Longest query in tokens; a longer one is cut. -1 for the model's own limit.",
    )
    normalize: Flag = Field(
        True, validation_alias=names("normalize", "use_activation", "activation"), description=_NORMALIZE
    )
    raw_scores: Flag = Field(False, description="As normalize: false.")


class RerankDocumentsRequest(RankingOptions):
    """A query and its documents, as Cohere's and Jina's clients send them; results come back sorted."""

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
        None, ge=1, validation_alias=names("top_n", "top_k"), description="Give only the best so many."
    )
    rank_fields: Annotated[list[str], Field(min_length=1, max_length=100)] | None = Field(
        None, description="Read these fields of documents that are objects, one after the other, a line each."
    )
    return_documents: Flag = Field(
        False,
        validation_alias=names("return_documents", "return_text"),
        description="Repeat each document beside its score.",
    )
    batch_size: int = Field(12, ge=1, le=1_000_000, description=_BATCH)


class RerankTextsRequest(RankingOptions):
    """A query and its texts, as clients of text-embeddings-inference send them; results come back sorted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"query": "rotate a log file", "texts": ["logrotate rotates log files.", "cron runs jobs."]}]
        }
    )

    query: TextOrObject
    texts: Annotated[list[ForeignText], Field(max_length=MOST_TEXTS), BeforeValidator(texts_of)]
    top_n: int | None = Field(
        None, ge=1, validation_alias=names("top_n", "top_k"), description="Give only the best so many."
    )
    return_text: Flag = Field(
        False,
        validation_alias=names("return_text", "return_documents"),
        description="Repeat each text beside its score.",
    )


_FORMS = {"openai": "<documents>", "tei": "<ranked texts>", "native": "<candidates>"}


def _form(body: Any) -> str:
    fields = body if isinstance(body, dict) else getattr(body, "__dict__", {})
    return _FORMS[rerank_dialect(fields)]


AnyRerankRequest = Annotated[
    Annotated[RerankRequest, Tag("<candidates>")]
    | Annotated[RerankDocumentsRequest, Tag("<documents>")]
    | Annotated[RerankTextsRequest, Tag("<ranked texts>")],
    Discriminator(_form),
]


class RerankReply(BaseModel):
    """One score for each candidate, in their order; larger is better."""

    scores: list[float]


class RerankResult(BaseModel):
    """One document's place."""

    index: int = Field(description="Its place in the request.")
    relevance_score: float
    document: dict[str, Any] | None = None


class RankingUsage(BaseModel):
    """What it cost: a document that was sent twice counts twice."""

    prompt_tokens: int
    total_tokens: int


class RankedIndex(BaseModel):
    """One document's place, as Voyage's clients read it."""

    index: int
    relevance_score: float


class RerankDocumentsReply(BaseModel):
    """The documents, best first."""

    id: str
    object: Literal["rerank"]
    model: str
    results: list[RerankResult]
    data: list[RankedIndex] = Field(description="The same without the documents.")
    usage: RankingUsage
    meta: dict[str, Any]


class RankedText(BaseModel):
    """One text's place."""

    index: int = Field(description="Its place in the request.")
    score: float
    text: str | None = None


class ExplainRequest(EncodingOptions):
    """A query and one candidate."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "rotate a log file", "candidate": "logrotate rotates log files."}]}
    )

    query: Text
    candidate: Text


class TokenMatch(BaseModel):
    """One query token's best match."""

    query_token: str
    candidate_token: str
    candidate_index: int = Field(description="Its place in `candidate_tokens`.")
    similarity: float = Field(description="The cosine of the two.")


class ExplainReply(BaseModel):
    """Where the score comes from: it is the mean of the similarities."""

    model: str
    score: float
    query_tokens: list[str] = Field(description="A blank in front starts a word; the last one is the end mark.")
    candidate_tokens: list[str]
    matches: list[TokenMatch]
