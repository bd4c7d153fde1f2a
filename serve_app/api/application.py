"""The FastAPI application: routes, error bodies, documentation pages that need no internet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline

from serve_app import __version__
from serve_app.api import documentation_pages, error_responses, openapi_document, openapi_security
from serve_app.api.dialects.cohere.embed_routes import cohere_router
from serve_app.api.dialects.native.fine_tune_routes import fine_tuning_router
from serve_app.api.dialects.native.health_routes import health_router
from serve_app.api.dialects.native.hybrid_routes import hybrid_router
from serve_app.api.dialects.native.jobs_routes import jobs_router
from serve_app.api.dialects.native.models_routes import models_router
from serve_app.api.dialects.native.rerank_routes import rerank_router
from serve_app.api.dialects.native.vectorize_routes import native_router
from serve_app.api.dialects.openai.embeddings_routes import openai_router
from serve_app.api.dialects.openai.files_routes import openai_files_router
from serve_app.api.dialects.openai.fine_tuning_jobs_routes import openai_fine_tuning_router
from serve_app.api.dialects.tei.tei_routes import tei_router
from serve_app.api.dialects.vllm.score_routes import score_router
from serve_app.api.jobs_service import JobsProtocol
from serve_app.api.middleware.api_key_auth import Access, ApiKeyMiddleware
from serve_app.api.middleware.body_limits import BodyLimitMiddleware
from serve_app.api.middleware.content_encoding import ContentEncodingMiddleware
from serve_app.api.middleware.drain import DrainMiddleware, DrainState
from serve_app.api.middleware.head_requests import HeadMiddleware
from serve_app.api.middleware.origin_check import OriginCheckMiddleware
from serve_app.api.middleware.trusted_hosts import TrustedHostMiddleware
from serve_app.api.playground.playground_route import playground_router
from serve_app.api.service import ServiceProtocol
from serve_app.domain.request_limits import FineTuneLimits, Limits

_DESCRIPTION = (
    "Turns text into vectors and reranks candidates. Every error of our own routes is "
    '`{"detail": what to do, "code": a stable word}`; routes for clients of other services answer as those do.'
)

_CORS: Mapping[str, Any] = {
    "allow_methods": ("GET", "POST", "DELETE"),
    "allow_headers": ("*",),
    "expose_headers": (
        "Retry-After", "WWW-Authenticate", "X-Request-ID", "X-Truncated", "X-Truncated-Count", "X-Ignored-Fields",
        "X-Shape", "X-Dtype", "X-Lengths",
    ),
    "max_age": 600,  # seconds for which a browser need not ask again
}  # fmt: skip


def create_app(
    gateway: ServiceProtocol,
    jobs: JobsProtocol,
    limits: Limits,
    fine_tune_limits: FineTuneLimits,
    *,
    count_status: Callable[[str, int], None] = lambda path, status: None,
    access: Access | None = None,
    cors_origins: Sequence[str] = (),
    hosts: Collection[str] | None = None,
    door: DrainState | None = None,
) -> FastAPI:
    """The whole HTTP surface over two gateways.

    Args:
        gateway: What computes; a fake one in tests.
        jobs: What looks after fine-tunes; likewise.
        limits: Bounds of a request.
        fine_tune_limits: Bounds of a fine-tune.
        count_status: Called with path and status of every response, for the metrics.
        access: Who may use the service; None for everybody.
        cors_origins: Origins of web pages that may call it; ``*`` for any.
        hosts: Names that it may be asked for by, beside addresses and ``localhost``; None where any will do.
        door: Closed when the service stops; None if it never is.
    """
    app = FastAPIOffline(title="Retrieval model server", version=__version__, description=_DESCRIPTION)
    documentation_pages.serve_own_assets(app)
    app.add_middleware(ContentEncodingMiddleware)
    if access is not None:
        app.add_middleware(ApiKeyMiddleware, access=access)
        openapi_security.describe(app)
    app.add_middleware(OriginCheckMiddleware, allowed=cors_origins)
    if hosts is not None:
        app.add_middleware(TrustedHostMiddleware, allowed=hosts)
    if door is not None:
        app.add_middleware(DrainMiddleware, door=door)
    app.add_middleware(
        BodyLimitMiddleware,
        max_body_bytes=limits.max_body_bytes,
        max_bodies_bytes=limits.max_bodies_bytes,
        body_timeout_s=limits.body_timeout_s,
        count_status=count_status,
    )
    app.add_middleware(HeadMiddleware)
    if cors_origins:  # outermost: a page may read refusals, too, and a browser asks for leave without a key
        app.add_middleware(CORSMiddleware, allow_origins=cors_origins, **_CORS)
    error_responses.install(app)
    openapi_document.describe(app)
    app.include_router(native_router(gateway, limits))
    app.include_router(hybrid_router(gateway, limits))
    app.include_router(rerank_router(gateway, limits))
    app.include_router(openai_router(gateway, jobs, limits))
    app.include_router(cohere_router(gateway, limits))
    app.include_router(score_router(gateway, limits))
    app.include_router(tei_router(gateway, limits))
    app.include_router(models_router(gateway, jobs))
    app.include_router(fine_tuning_router(jobs, fine_tune_limits))
    app.include_router(jobs_router(jobs))
    app.include_router(openai_files_router(jobs))
    app.include_router(openai_fine_tuning_router(jobs, fine_tune_limits))
    app.include_router(health_router(gateway))
    app.include_router(playground_router())
    return app
