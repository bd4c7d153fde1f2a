"""Reranking of documents as Cohere's and Jina's clients request it, and /v2/rerank."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.dialects.cohere.documents_rerank_schemas import RerankDocumentsReply, RerankDocumentsRequest
from serve_app.api.dialects.foreign_ranking import best_first, ranking_options, wants_normalized
from serve_app.api.dialects.openai.openai_errors import OPENAI_ERRORS
from serve_app.api.dialects.text_objects import text_of
from serve_app.api.dialects.tolerant_request import TolerantRoute
from serve_app.api.encoding.json_stream import json_reply
from serve_app.api.inference_results import Ranked
from serve_app.api.request_options import TimeoutHeader, known_name
from serve_app.api.route_services import Services, ServicesDep
from serve_app.api.validated_texts import candidate_texts, field_errors
from serve_app.domain.errors import InvalidInputError

router = APIRouter(tags=["reranking"], route_class=TolerantRoute)


@router.post(
    "/v2/rerank", response_model=RerankDocumentsReply, responses=OPENAI_ERRORS, summary="Rerank documents (Cohere v2)"
)
async def rerank_v2(
    services: ServicesDep, request: RerankDocumentsRequest, timeout_header: TimeoutHeader = None
) -> Response:
    """Documents sorted by their score for a query."""
    return await rank_documents(services, request, timeout_header)


async def rank_documents(
    services: Services, request: RerankDocumentsRequest, timeout_header: str | None, *, version: str = "2"
) -> Response:
    """The reply to a request of this form; ``version`` of Cohere's API stands in ``meta``."""
    options = ranking_options(request, timeout_header, services.limits)
    documents = document_texts(request.documents, request.rank_fields)
    texts = candidate_texts(request.query, documents, services.limits, field="documents", blank=True)
    if documents:
        with field_errors(texts):
            ranked = await services.inference.rerank(
                request.query, documents, options, batch_size=request.batch_size, normalize=wants_normalized(request)
            )
    else:
        ranked = Ranked(await known_name(services.inference, options, "rerank"), np.empty(0, np.float32), 0)
    return json_reply(_reply(request, ranked, version), truncated=ranked.truncated)


def _reply(request: RerankDocumentsRequest, ranked: Ranked, version: str) -> dict[str, Any]:
    results: list[dict[str, Any]] = [
        {"index": i, "relevance_score": ranked.scores[i]} for i in best_first(ranked.scores)[: request.top_n]
    ]
    if request.return_documents:
        results = [result | {"document": _document(request.documents, result["index"])} for result in results]
    return {
        "id": str(uuid.uuid4()),
        "object": "rerank",
        "model": ranked.model,
        "results": results,
        "data": results,
        "usage": {"prompt_tokens": ranked.tokens, "total_tokens": ranked.tokens},
        "meta": {
            "api_version": {"version": version},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": ranked.tokens, "output_tokens": 0},
        },
    }


def document_texts(documents: Sequence[str | dict[str, Any]], rank_fields: Sequence[str] | None) -> list[str]:
    """The text of each document.

    Args:
        documents: Texts, or objects with a text.
        rank_fields: Fields of objects to use instead of their text, one line each.

    Raises:
        InvalidInputError: An object has no text, or none of the fields.
    """
    return [
        document if isinstance(document, str) else _text_of_object(document, rank_fields, i)
        for i, document in enumerate(documents)
    ]


def _text_of_object(document: dict[str, Any], rank_fields: Sequence[str] | None, index: int) -> str:
    if rank_fields is None:
        text = text_of(document)
        if isinstance(text, str):
            return text
        raise InvalidInputError(
            f"documents[{index}]: an object needs a text, content or page_content that is a string, or rank_fields"
        )
    values = [document[name] for name in rank_fields if document.get(name) is not None]
    if not values:
        raise InvalidInputError(f"documents[{index}]: has none of the rank_fields")
    if not all(isinstance(value, str | int | float) for value in values):
        raise InvalidInputError(f"documents[{index}]: a field of rank_fields is neither a string nor a number")
    return "\n".join(map(str, values))


def _document(documents: Sequence[str | dict[str, Any]], index: int) -> dict[str, str] | orjson.Fragment:
    """A document as it was sent; orjson itself encodes no long integers, lone surrogates or deep nesting."""
    document = documents[index]
    if isinstance(document, str):
        return {"text": document}
    try:
        return orjson.Fragment(json.dumps(document, allow_nan=False))
    except (ValueError, RecursionError):
        raise InvalidInputError(
            f"documents[{index}]: holds NaN, infinity or too deep a nesting and cannot be returned; "
            f"leave it out, or do without return_documents"
        ) from None
