"""The native dialect."""

from __future__ import annotations

from serve_app.api.dialects.dialect import Dialect, RerankForm
from serve_app.api.dialects.native import (
    fine_tune_routes,
    health_routes,
    hybrid_routes,
    jobs_routes,
    models_routes,
    rerank_routes,
    vectorize_routes,
)
from serve_app.api.dialects.native.native_errors import ErrorBody, native_error_body
from serve_app.api.dialects.native.rerank_schemas import RerankReply, RerankRequest
from serve_app.api.union_tags import union_tag

NATIVE = Dialect(
    routers=(
        vectorize_routes.router,
        hybrid_routes.router,
        rerank_routes.router,
        models_routes.router,
        fine_tune_routes.router,
        jobs_routes.router,
        health_routes.router,
    ),
    error_body=native_error_body,
    error_schema=ErrorBody,
    invalid_status=422,
    rerank=RerankForm(
        frozenset({"candidates"}), union_tag("<candidates>"), RerankRequest, RerankReply, rerank_routes.score_candidates
    ),
)
