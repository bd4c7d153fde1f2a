"""/v1/rerank: the documents form of reranking, which Jina, Voyage and version 1 of Cohere share."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.dialects.cohere.documents_rerank import rank_documents
from serve_app.api.dialects.cohere.documents_rerank_schemas import RerankDocumentsReply, RerankDocumentsRequest
from serve_app.api.dialects.openai.openai_errors import OPENAI_ERRORS
from serve_app.api.dialects.tolerant_request import TolerantRoute
from serve_app.api.request_options import TimeoutHeader
from serve_app.api.route_services import ServicesDep

router = APIRouter(tags=["reranking"], route_class=TolerantRoute)


@router.post(
    "/v1/rerank",
    response_model=RerankDocumentsReply,
    responses=OPENAI_ERRORS,
    summary="Rerank documents (Jina, Voyage, Cohere v1)",
)
async def rerank_v1(
    services: ServicesDep, request: RerankDocumentsRequest, timeout_header: TimeoutHeader = None
) -> Response:
    """Documents sorted by their score for a query."""
    return await rank_documents(services, request, timeout_header, version="1")
