"""/rerank in three forms, its names in other services' clients, and /rerank/explain."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.dialects.foreign_ranking import BATCH_SIZE, document_texts, ranking_options, wants_normalized
from serve_app.api.dialects.native.rerank_schemas import (
    AnyRerankRequest,
    ExplainReply,
    ExplainRequest,
    RankedText,
    RerankDocumentsReply,
    RerankDocumentsRequest,
    RerankReply,
    RerankRequest,
    RerankTextsRequest,
)
from serve_app.api.dialects.tolerant_request import TolerantRoute
from serve_app.api.encoding.json_stream import json_reply
from serve_app.api.error_responses import ERRORS, OPENAI_ERRORS, RERANK_ERRORS
from serve_app.api.request_options import TimeoutHeader, known_name, options_of
from serve_app.api.service import ServiceProtocol
from serve_app.api.service_results import CallOptions, Ranked
from serve_app.api.validated_texts import candidate_texts, naming, pair_texts
from serve_app.domain.embeddings import Float32
from serve_app.domain.errors import InvalidInputError
from serve_app.domain.request_limits import Limits


def rerank_router(gateway: ServiceProtocol, limits: Limits) -> APIRouter:
    """The routes over a gateway."""
    router = APIRouter(tags=["reranking"], route_class=TolerantRoute)

    @router.post(
        "/rerank",
        response_model=RerankReply | RerankDocumentsReply | list[RankedText],
        responses=RERANK_ERRORS,
        summary="Scores for a query",
    )
    async def rerank(request: AnyRerankRequest, wanted_timeout: TimeoutHeader = None) -> Response:
        """With `candidates` one score for each, in their order; with `documents` or `texts` results sorted by score."""
        if isinstance(request, RerankRequest):
            return await _scores(gateway, request, options_of(request, wanted_timeout, limits), limits)
        if isinstance(request, RerankTextsRequest):
            options = ranking_options(request, wanted_timeout, limits, truncate=False)
            return await _ranked_texts(gateway, request, options, limits)
        return await _results(gateway, request, wanted_timeout, limits, "2")

    @router.post(
        "/v1/rerank",
        response_model=RerankDocumentsReply,
        responses=OPENAI_ERRORS,
        summary="Rerank as Jina's, Voyage's and Cohere's v1 clients do",
    )
    async def rerank_v1(request: RerankDocumentsRequest, wanted_timeout: TimeoutHeader = None) -> Response:
        """Documents sorted by their score for a query."""
        return await _results(gateway, request, wanted_timeout, limits, "1")

    @router.post(
        "/v2/rerank",
        response_model=RerankDocumentsReply,
        responses=OPENAI_ERRORS,
        summary="Rerank as Cohere's v2 clients do",
    )
    async def rerank_v2(request: RerankDocumentsRequest, wanted_timeout: TimeoutHeader = None) -> Response:
        """Documents sorted by their score for a query."""
        return await _results(gateway, request, wanted_timeout, limits, "2")

    @router.post("/rerank/explain", response_model=ExplainReply, responses=ERRORS, summary="Where a score comes from")
    async def explain(request: ExplainRequest, wanted_timeout: TimeoutHeader = None) -> Response:
        """For each token of the query the candidate's token that matches best; for late interaction alone."""
        texts = pair_texts(request.query, request.candidate, limits)
        with naming(texts):
            found = await gateway.explain(request.query, request.candidate, options_of(request, wanted_timeout, limits))
        indices, similarities = (found.matches.positions - 1).tolist(), found.matches.similarities
        matches = [
            {
                "query_token": token,
                "candidate_token": found.candidate_tokens[index],
                "candidate_index": index,
                "similarity": similarity,
            }
            for token, index, similarity in zip(found.query_tokens, indices, similarities, strict=True)
        ]
        return json_reply(
            {
                "model": found.model,
                "score": sum(similarities) / len(similarities),
                "query_tokens": found.query_tokens,
                "candidate_tokens": found.candidate_tokens,
                "matches": matches,
            },
            truncated=found.truncated,
        )

    return router


async def _scores(gateway: ServiceProtocol, request: RerankRequest, options: CallOptions, limits: Limits) -> Response:
    texts = candidate_texts(request.query, request.candidates, limits)
    if not texts.values:
        await known_name(gateway, options, "rerank")
        return json_reply({"scores": []})
    with naming(texts):
        ranked = await gateway.rerank(
            request.query, texts.values, options, batch_size=request.batch_size, normalize=request.normalize
        )
    return json_reply({"scores": ranked.scores}, truncated=ranked.truncated)


async def _results(
    gateway: ServiceProtocol, request: RerankDocumentsRequest, header: str | None, limits: Limits, version: str
) -> Response:
    options = ranking_options(request, header, limits)
    documents = document_texts(request.documents, request.rank_fields)
    texts = candidate_texts(request.query, documents, limits, field="documents", blank=True)
    if documents:
        with naming(texts):
            ranked = await gateway.rerank(
                request.query, documents, options, batch_size=request.batch_size, normalize=wants_normalized(request)
            )
    else:
        ranked = Ranked(await known_name(gateway, options, "rerank"), np.empty(0, np.float32), 0)
    best = best_first(ranked.scores)[: request.top_n]
    places = [{"index": index, "relevance_score": ranked.scores[index]} for index in best]
    results = places
    if request.return_documents:
        results = [
            place | {"document": _given_back(request.documents, i)} for place, i in zip(places, best, strict=True)
        ]
    reply = {
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
    return json_reply(reply, truncated=ranked.truncated)


async def _ranked_texts(
    gateway: ServiceProtocol, request: RerankTextsRequest, options: CallOptions, limits: Limits
) -> Response:
    texts = candidate_texts(request.query, request.texts, limits, field="texts", blank=True)
    if not texts.values:
        await known_name(gateway, options, "rerank")
        return json_reply([])
    with naming(texts):
        ranked = await gateway.rerank(
            request.query, request.texts, options, batch_size=BATCH_SIZE, normalize=wants_normalized(request)
        )
    results = [
        {"index": index, "score": ranked.scores[index]}
        | ({"text": request.texts[index]} if request.return_text else {})
        for index in best_first(ranked.scores)[: request.top_n]
    ]
    return json_reply(results, truncated=ranked.truncated)


def best_first(scores: Float32) -> list[int]:
    """Indices by falling score; among equals the earlier document first."""
    return [int(index) for index in np.argsort(-scores, kind="stable")]


def _given_back(documents: Sequence[str | dict[str, Any]], index: int) -> dict[str, str] | orjson.Fragment:
    """A document as it came; orjson refuses what it may hold: long integers, half a surrogate pair, deep nesting."""
    document = documents[index]
    if isinstance(document, str):
        return {"text": document}
    try:
        return orjson.Fragment(json.dumps(document, allow_nan=False))
    except (ValueError, RecursionError):
        raise InvalidInputError(
            f"documents[{index}]: holds NaN, infinity or too deep a nesting and cannot be given back; "
            f"leave it out, or do without return_documents"
        ) from None
