"""The Cohere dialect: its clients read ``message``, which OpenAI's error body here carries beside ``error``."""

from __future__ import annotations

from serve_app.api.dialects.cohere import documents_rerank, embed_routes
from serve_app.api.dialects.cohere.documents_rerank_schemas import RerankDocumentsReply, RerankDocumentsRequest
from serve_app.api.dialects.dialect import Dialect, RerankForm
from serve_app.api.dialects.openai.openai_errors import OpenAIErrorBody, openai_error_body
from serve_app.api.union_tags import union_tag

COHERE = Dialect(
    routers=(embed_routes.router, documents_rerank.router),
    error_body=openai_error_body,
    error_schema=OpenAIErrorBody,
    rerank=RerankForm(
        frozenset({"documents", "passages"}),
        union_tag("<documents>"),
        RerankDocumentsRequest,
        RerankDocumentsReply,
        documents_rerank.rank_documents,
    ),
)
