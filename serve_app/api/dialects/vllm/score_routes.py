"""/score and /v1/score of vLLM: scores of one query with many documents, or of pairs."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import monotonic

import numpy as np
from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.dialects.foreign_ranking import BATCH_SIZE, ranking_options, wants_normalized
from serve_app.api.dialects.openai.openai_errors import OPENAI_ERRORS
from serve_app.api.dialects.tolerant_request import TolerantRoute
from serve_app.api.dialects.vllm.score_schemas import ScoreReply, ScoreRequest
from serve_app.api.encoding.json_stream import json_reply
from serve_app.api.inference_results import CallOptions, Ranked, TokenTotal
from serve_app.api.request_options import TimeoutHeader
from serve_app.api.route_services import Services, ServicesDep
from serve_app.api.validated_texts import candidate_texts, listed_texts
from serve_app.domain.embeddings import Float32
from serve_app.domain.errors import DeadlineError, InvalidInputError, ServiceError
from serve_app.domain.request_limits import Limits

_QUERIES_AT_ONCE = 8


router = APIRouter(tags=["vLLM"], route_class=TolerantRoute, responses=OPENAI_ERRORS)


@router.post("/score", response_model=ScoreReply, summary="Score pairs of texts (alias of /v1/score)")
@router.post("/v1/score", response_model=ScoreReply, summary="Score pairs of texts")
async def score(services: ServicesDep, request: ScoreRequest, timeout_header: TimeoutHeader = None) -> Response:
    """One score for each pair, in their order; a single `text_1` is paired with every `text_2`."""
    began = monotonic()
    options = ranking_options(request, timeout_header, services.limits)
    queries, documents = _validated_pairs(request, services.limits)
    groups = _by_query(queries, len(documents))
    normalize = wants_normalized(request)
    ranked = await _rank_all(services, groups, documents, options, began + options.timeout_s, normalize=normalize)
    return _reply(len(documents), groups, ranked)


def _validated_pairs(request: ScoreRequest, limits: Limits) -> tuple[Sequence[str], Sequence[str]]:
    """One query or one for each document, and the documents.

    Raises:
        InvalidInputError: None, too many, numbers that make no pairs, or an invalid text.
    """
    queries = listed_texts(request.text_1, limits, field="text_1").values
    documents = candidate_texts(queries[0], request.text_2, limits, field="text_2", blank=True).values
    if not documents:
        raise InvalidInputError("text_2: must not be empty")
    if len(queries) not in {1, len(documents)}:
        raise InvalidInputError(
            f"text_1: {len(queries)} texts for {len(documents)} of text_2; send one, or one for each of text_2"
        )
    return queries, documents


async def _rank_all(
    services: Services,
    groups: Mapping[str, Sequence[int]],
    documents: Sequence[str],
    options: CallOptions,
    deadline: float,
    *,
    normalize: bool,
) -> list[Ranked]:
    """The scores of each group; the groups are ranked concurrently, within one deadline and one token limit."""
    gate, options = asyncio.Semaphore(_QUERIES_AT_ONCE), replace(options, total=TokenTotal())

    async def rank(query: str, rows: Sequence[int]) -> Ranked:
        async with gate:
            if (left_s := deadline - monotonic()) <= 0:
                raise DeadlineError.after(options.stated_s)
            part = replace(options, timeout_s=left_s, stated_timeout_s=options.stated_s)
            return await _rank(services, query, documents, rows, part, normalize=normalize)

    tasks = [asyncio.ensure_future(rank(query, rows)) for query, rows in groups.items()]
    try:
        return await asyncio.gather(*tasks)
    finally:  # one failed, or the client disconnected: the others are not needed
        for task in tasks:
            task.cancel()


def _reply(pairs: int, groups: Mapping[str, Sequence[int]], ranked: Sequence[Ranked]) -> Response:
    scores: Float32 = np.empty(pairs, np.float32)
    cut: set[int] = set()
    for rows, part in zip(groups.values(), ranked, strict=True):
        scores[rows] = part.scores
        cut.update(_cut(rows, part))
    tokens = sum(part.tokens for part in ranked)
    reply = {
        "id": f"score-{uuid.uuid4()}",
        "object": "list",
        "created": int(time.time()),
        "model": ranked[0].model,
        "data": [{"index": i, "object": "score", "score": score} for i, score in enumerate(scores)],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return json_reply(reply, truncated=sorted(cut))


def _by_query(queries: Sequence[str], pairs: int) -> dict[str, list[int]]:
    """The indices of the pairs of each query."""
    groups: dict[str, list[int]] = {}
    for i in range(pairs):
        groups.setdefault(queries[i if len(queries) > 1 else 0], []).append(i)
    return groups


async def _rank(
    services: Services,
    query: str,
    documents: Sequence[str],
    rows: Sequence[int],
    options: CallOptions,
    *,
    normalize: bool,
) -> Ranked:
    """Scores of pairs that share their query.

    Raises:
        ServiceError: With the field of the invalid text in its message.
    """
    candidates = [documents[i] for i in rows]
    try:
        inference = services.inference
        return await inference.rerank(query, candidates, options, batch_size=BATCH_SIZE, normalize=normalize)
    except ServiceError as error:
        if error.item is not None:
            name = f"text_2[{rows[error.item]}]" if error.item >= 0 else f"text_1[{rows[0]}]"
            error.message = f"{name}: {error.message}"
        raise


def _cut(rows: Sequence[int], ranked: Ranked) -> list[int]:
    """The indices of the pairs with a text that was cut."""
    return [*rows] if -1 in ranked.truncated else [rows[i] for i in ranked.truncated]
