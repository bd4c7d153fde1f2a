"""/vectorize and /vectorize-batch: text in, dense vectors out."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.body import StrictRoute
from serve_app.api.deadline import TimeoutHeader, timeout_s
from serve_app.api.gateway import Gateway
from serve_app.api.problems import Problem
from serve_app.api.replies import json_reply, vectors_reply
from serve_app.api.schemas.native import (
    VectorizeBatchReply,
    VectorizeBatchRequest,
    VectorizeReply,
    VectorizeRequest,
)
from serve_app.api.texts import batch_texts, naming, single_text
from serve_app.domain.limits import Limits
from serve_app.domain.profiles import TextRole

_ERRORS = {
    404: "No served model has this name.",
    408: "The deadline passed; the work was dropped.",
    413: "The body is larger than the limit.",
    422: "The body breaks the schema or a limit; `detail` names the field and the index.",
    429: "The queue is full; `Retry-After` says when to come back.",
    500: "An unexpected failure; the log has the trace under `error_id`.",
    503: "No replica is ready; `Retry-After` says when to come back.",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text} for status, text in _ERRORS.items()
}


def native_router(gateway: Gateway, limits: Limits) -> APIRouter:
    """The routes over a gateway."""
    router = APIRouter(tags=["vectors"], responses=ERRORS, route_class=StrictRoute)

    @router.post("/vectorize", response_model=VectorizeReply, summary="The vector of one text")
    async def vectorize(request: VectorizeRequest, wanted_timeout: TimeoutHeader = None) -> Response:
        """Embeds one text, by default as a search query."""
        texts = single_text(request.text, limits)
        role = TextRole.of(is_query=request.is_query)
        with naming(texts):
            embedded = await gateway.embed(
                texts.values,
                role,
                model=request.model,
                truncate=request.truncate,
                timeout_s=timeout_s(wanted_timeout, limits),
            )
        return json_reply({"vector": embedded.vectors[0]}, truncated=embedded.truncated)

    @router.post("/vectorize-batch", response_model=VectorizeBatchReply, summary="The vectors of many texts")
    async def vectorize_batch(request: VectorizeBatchRequest, wanted_timeout: TimeoutHeader = None) -> Response:
        """Embeds many texts, by default as passages; an empty `items` gets an empty answer."""
        texts = batch_texts(request.items, limits)
        deadline = timeout_s(wanted_timeout, limits)
        if not texts.values:
            return json_reply({"vectors": {} if isinstance(request.items, dict) else []})
        role = TextRole.of(is_query=request.is_query)
        with naming(texts):
            embedded = await gateway.embed(
                texts.values, role, model=request.model, truncate=request.truncate, timeout_s=deadline
            )
        return vectors_reply(embedded.vectors, texts.ids, truncated=embedded.truncated)

    return router
