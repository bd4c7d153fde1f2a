"""/vectorize and /vectorize-batch: text in, dense vectors out."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.body import StrictRoute
from serve_app.api.gateway import Gateway
from serve_app.api.options import TimeoutHeader, options_of
from serve_app.api.problems import ERRORS
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


def native_router(gateway: Gateway, limits: Limits) -> APIRouter:
    """The routes over a gateway."""
    router = APIRouter(tags=["vectors"], responses=ERRORS, route_class=StrictRoute)

    @router.post("/vectorize", response_model=VectorizeReply, summary="The vector of one text")
    async def vectorize(request: VectorizeRequest, wanted_timeout: TimeoutHeader = None) -> Response:
        """Embeds one text, by default as a search query."""
        texts = single_text(request.text, limits)
        role = TextRole.of(is_query=request.is_query)
        with naming(texts):
            embedded = await gateway.embed(texts.values, role, options_of(request, wanted_timeout, limits))
        return json_reply({"vector": embedded.vectors[0]}, truncated=embedded.truncated)

    @router.post("/vectorize-batch", response_model=VectorizeBatchReply, summary="The vectors of many texts")
    async def vectorize_batch(request: VectorizeBatchRequest, wanted_timeout: TimeoutHeader = None) -> Response:
        """Embeds many texts, by default as passages; an empty `items` gets an empty answer."""
        texts = batch_texts(request.items, limits)
        options = options_of(request, wanted_timeout, limits)
        if not texts.values:
            return json_reply({"vectors": {} if isinstance(request.items, dict) else []})
        role = TextRole.of(is_query=request.is_query)
        with naming(texts):
            embedded = await gateway.embed(texts.values, role, options)
        return vectors_reply(embedded.vectors, texts.ids, truncated=embedded.truncated)

    return router
