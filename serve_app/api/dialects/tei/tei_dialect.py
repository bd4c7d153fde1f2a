"""The dialect of Hugging Face's text-embeddings-inference."""

from __future__ import annotations

from serve_app.api.dialects.dialect import Dialect, RerankForm
from serve_app.api.dialects.tei import tei_routes, texts_rerank
from serve_app.api.dialects.tei.tei_errors import TEIErrorBody, tei_error_body
from serve_app.api.union_tags import union_tag

TEI = Dialect(
    routers=(tei_routes.router,),
    error_body=tei_error_body,
    error_schema=TEIErrorBody,
    rerank=RerankForm(
        frozenset({"texts"}),
        union_tag("<ranked texts>"),
        texts_rerank.RerankTextsRequest,
        list[texts_rerank.RankedText],
        texts_rerank.rank_texts,
    ),
)
