"""Schemas of the native rerank routes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from serve_app.api.dialects.ranking_schemas import BATCH_DESCRIPTION, NORMALIZE_DESCRIPTION
from serve_app.api.dialects.strict_request import EncodingOptions, Text
from serve_app.domain.request_limits import MOST_TEXTS


class RerankRequest(EncodingOptions):
    """A query and its candidates; the scores have their order."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "rotate a log file", "candidates": ["logrotate rotates log files.", "cron runs jobs."]}
            ]
        }
    )

    query: Text
    candidates: list[Text] = Field(max_length=MOST_TEXTS)
    batch_size: int = Field(12, ge=1, le=1_000_000, description=BATCH_DESCRIPTION)
    normalize: bool = Field(True, description=NORMALIZE_DESCRIPTION)


class RerankReply(BaseModel):
    """One score for each candidate, in their order; larger is better."""

    scores: list[float]


class ExplainRequest(EncodingOptions):
    """A query and one candidate."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "rotate a log file", "candidate": "logrotate rotates log files."}]}
    )

    query: Text
    candidate: Text


class TokenMatch(BaseModel):
    """The best match of a query token."""

    query_token: str
    candidate_token: str
    candidate_index: int = Field(description="Its index in `candidate_tokens`.")
    similarity: float = Field(description="The cosine of the two token vectors.")


class ExplainReply(BaseModel):
    """The token matches behind a score; the score is the mean of the similarities."""

    model: str
    score: float
    query_tokens: list[str] = Field(
        description="A leading space marks the start of a word; the last one is the end-of-sequence token."
    )
    candidate_tokens: list[str]
    matches: list[TokenMatch]
