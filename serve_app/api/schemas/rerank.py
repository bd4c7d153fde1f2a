"""Bodies of the rerank routes: our own, the one that Cohere's and Jina's clients speak, and TEI's."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from serve_app.api.schemas.native import EncodingOptions, Text
from serve_app.api.schemas.tei import TEIOptions
from serve_app.domain.limits import MOST_TEXTS

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


class DocumentText(BaseModel):
    """A document as an object; what it has beside its text is given back and not read."""

    model_config = ConfigDict(extra="allow", strict=True)

    text: Text


class RerankDocumentsRequest(EncodingOptions):
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

    query: Text
    documents: list[Text | DocumentText] = Field(max_length=MOST_TEXTS)
    top_n: int | None = Field(None, ge=1, description="Give only the best so many.")
    return_documents: bool = Field(False, description="Repeat each document beside its score.")
    batch_size: int = Field(12, ge=1, le=1_000_000, description=_BATCH)
    max_tokens_per_doc: int | None = Field(
        None, ge=1, description="Taken from Cohere's clients and not needed: documents are cut to the model's limit."
    )


class RerankTextsRequest(TEIOptions):
    """A query and its texts, as clients of text-embeddings-inference send them; results come back sorted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"query": "rotate a log file", "texts": ["logrotate rotates log files.", "cron runs jobs."]}]
        }
    )

    query: Text
    texts: list[Text] = Field(max_length=MOST_TEXTS)
    raw_scores: bool = Field(False, description="As normalize: false of the other form.")
    return_text: bool = Field(False, description="Repeat each text beside its score.")


def _form(body: Any) -> str:
    fields = body if isinstance(body, dict) else getattr(body, "__dict__", {})
    return "<documents>" if "documents" in fields else "<ranked texts>" if "texts" in fields else "<candidates>"


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


class RerankUsage(BaseModel):
    """What it cost."""

    total_tokens: int


class RerankDocumentsReply(BaseModel):
    """The documents, best first."""

    id: str
    model: str
    results: list[RerankResult]
    usage: RerankUsage
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
