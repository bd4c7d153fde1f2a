"""/vectorize-hybrid and /vectorize-batch-hybrid: text in, dense, sparse and ColBERT out, from one forward."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.body import StrictRoute
from serve_app.api.gateway import Gateway
from serve_app.api.options import TimeoutHeader, options_of
from serve_app.api.problems import ERRORS
from serve_app.api.replies import hybrid_reply, json_reply, single_hybrid_reply
from serve_app.api.schemas.hybrid import HybridBatchReply, HybridBatchRequest, HybridReply, HybridRequest
from serve_app.api.texts import batch_texts, naming, single_text
from serve_app.domain.limits import Limits


def hybrid_router(gateway: Gateway, limits: Limits) -> APIRouter:
    """The routes over a gateway."""
    router = APIRouter(tags=["vectors"], responses=ERRORS, route_class=StrictRoute)

    @router.post("/vectorize-hybrid", response_model=HybridReply, summary="All representations of one text")
    async def vectorize_hybrid(request: HybridRequest, wanted_timeout: TimeoutHeader = None) -> Response:
        """Dense, sparse and, if asked for, ColBERT vectors of one text; needs a BGE-M3 model."""
        texts = single_text(request.text, limits)
        options = options_of(request, wanted_timeout, limits)
        with naming(texts):
            return single_hybrid_reply(await gateway.encode(texts.values, options, colbert=request.return_colbert))

    @router.post(
        "/vectorize-batch-hybrid", response_model=HybridBatchReply, summary="All representations of many texts"
    )
    async def vectorize_batch_hybrid(request: HybridBatchRequest, wanted_timeout: TimeoutHeader = None) -> Response:
        """As /vectorize-hybrid for many texts; an empty `items` gets an empty answer."""
        texts = batch_texts(request.items, limits)
        options = options_of(request, wanted_timeout, limits)
        if not texts.values:
            return json_reply({"hybrid_vectors": {} if isinstance(request.items, dict) else []})
        with naming(texts):
            embedded = await gateway.encode(texts.values, options, colbert=request.return_colbert)
        return hybrid_reply(embedded, texts.ids)

    return router
