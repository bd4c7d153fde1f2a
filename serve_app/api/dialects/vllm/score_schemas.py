"""Schemas of the score routes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from serve_app.api.dialects.ranking_schemas import RankingOptions, RankingUsage
from serve_app.api.dialects.text_objects import TEXT_INPUTS_SCHEMA, ForeignText, texts_of
from serve_app.api.dialects.tolerant_request import names
from serve_app.domain.request_limits import MOST_TEXTS


def _as_list(value: Any) -> Any:
    texts = texts_of(value)
    return [texts] if isinstance(texts, str) else texts


TextsOfPairs = Annotated[
    list[ForeignText],
    Field(max_length=MOST_TEXTS),
    BeforeValidator(_as_list, json_schema_input_type=Annotated[Any, WithJsonSchema(TEXT_INPUTS_SCHEMA)]),
]


class ScoreRequest(RankingOptions):
    """A query and many documents, or as many of both, paired in their order."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"text_1": "rotate a log file", "text_2": ["logrotate rotates log files.", "cron runs jobs."]}]
        }
    )

    text_1: TextsOfPairs = Field(
        validation_alias=names("text_1", "queries", "query", "data_1"),
        description="One query, or one for each document.",
    )
    text_2: TextsOfPairs = Field(
        validation_alias=names("text_2", "documents", "data_2", "items"), description="The documents."
    )


class PairScore(BaseModel):
    """The score of one pair."""

    index: int
    object: Literal["score"]
    score: float


class ScoreReply(BaseModel):
    """One score for each pair, in their order; larger is better."""

    id: str
    object: Literal["list"]
    created: int = Field(description="Unix time in seconds.")
    model: str
    data: list[PairScore]
    usage: RankingUsage
