"""POST /rerank as clients of text-embeddings-inference send it."""

from __future__ import annotations

from typing import Annotated

from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from serve_app.api.dialects.field_values import Flag
from serve_app.api.dialects.foreign_ranking import BATCH_SIZE, best_first, ranking_options, wants_normalized
from serve_app.api.dialects.ranking_schemas import RankingOptions
from serve_app.api.dialects.text_objects import ForeignText, TextOrObject, texts_of
from serve_app.api.dialects.tolerant_request import names
from serve_app.api.encoding.json_stream import json_reply
from serve_app.api.request_options import known_name
from serve_app.api.route_services import Services
from serve_app.api.validated_texts import candidate_texts, field_errors
from serve_app.domain.request_limits import MOST_TEXTS


class RerankTextsRequest(RankingOptions):
    """A query and its texts; results are sorted by score."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"query": "rotate a log file", "texts": ["logrotate rotates log files.", "cron runs jobs."]}]
        }
    )

    query: TextOrObject
    texts: Annotated[list[ForeignText], Field(max_length=MOST_TEXTS), BeforeValidator(texts_of)]
    top_n: int | None = Field(
        None, ge=1, validation_alias=names("top_n", "top_k"), description="Return only the best results."
    )
    return_text: Flag = Field(
        False,
        validation_alias=names("return_text", "return_documents"),
        description="Repeat each text beside its score.",
    )


class RankedText(BaseModel):
    """The score of a text."""

    index: int = Field(description="Its index in the request.")
    score: float
    text: str | None = None


async def rank_texts(services: Services, request: RerankTextsRequest, timeout_header: str | None) -> Response:
    """The reply to a request of this form; a text over its limit is refused by default, as TEI does."""
    options = ranking_options(request, timeout_header, services.limits, truncate=False)
    texts = candidate_texts(request.query, request.texts, services.limits, field="texts", blank=True)
    if not texts.values:
        await known_name(services.inference, options, "rerank")
        return json_reply([])
    with field_errors(texts):
        ranked = await services.inference.rerank(
            request.query, request.texts, options, batch_size=BATCH_SIZE, normalize=wants_normalized(request)
        )
    results = [
        {"index": i, "score": ranked.scores[i]} | ({"text": request.texts[i]} if request.return_text else {})
        for i in best_first(ranked.scores)[: request.top_n]
    ]
    return json_reply(results, truncated=ranked.truncated)
