"""The native form of POST /rerank, and /rerank/explain."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.dialects.native.native_errors import ERRORS
from serve_app.api.dialects.native.rerank_schemas import ExplainReply, ExplainRequest, RerankRequest
from serve_app.api.dialects.tolerant_request import TolerantRoute
from serve_app.api.encoding.json_stream import json_reply
from serve_app.api.request_options import TimeoutHeader, known_name, options_of
from serve_app.api.route_services import Services, ServicesDep
from serve_app.api.validated_texts import candidate_texts, field_errors, pair_texts

router = APIRouter(tags=["reranking"], route_class=TolerantRoute)


async def score_candidates(services: Services, request: RerankRequest, timeout_header: str | None) -> Response:
    """One score for each candidate, in their order."""
    options = options_of(request, timeout_header, services.limits)
    texts = candidate_texts(request.query, request.candidates, services.limits)
    if not texts.values:
        await known_name(services.inference, options, "rerank")
        return json_reply({"scores": []})
    with field_errors(texts):
        ranked = await services.inference.rerank(
            request.query, texts.values, options, batch_size=request.batch_size, normalize=request.normalize
        )
    return json_reply({"scores": ranked.scores}, truncated=ranked.truncated)


@router.post("/rerank/explain", response_model=ExplainReply, responses=ERRORS, summary="Explain a score")
async def explain(services: ServicesDep, request: ExplainRequest, timeout_header: TimeoutHeader = None) -> Response:
    """For each query token the best-matching token of the candidate; late interaction only."""
    texts = pair_texts(request.query, request.candidate, services.limits)
    options = options_of(request, timeout_header, services.limits)
    with field_errors(texts):
        found = await services.inference.explain(request.query, request.candidate, options)
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
    reply = {
        "model": found.model,
        "score": sum(similarities) / len(similarities),
        "query_tokens": found.query_tokens,
        "candidate_tokens": found.candidate_tokens,
        "matches": matches,
    }
    return json_reply(reply, truncated=found.truncated)
