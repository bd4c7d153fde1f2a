"""The FastAPI application: middleware, dialects, error handlers and documentation pages without external assets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline

from serve_app import __version__
from serve_app.api import documentation_pages, error_responses, openapi_document, openapi_security
from serve_app.api.dialects import rerank_dispatch
from serve_app.api.dialects.dialect_registry import DIALECTS
from serve_app.api.inference_protocol import InferenceProtocol
from serve_app.api.jobs_protocol import JobsProtocol
from serve_app.api.middleware.api_key_auth import Access, ApiKeyMiddleware
from serve_app.api.middleware.body_limits import BodyLimitMiddleware
from serve_app.api.middleware.content_encoding import ContentEncodingMiddleware
from serve_app.api.middleware.drain import DrainMiddleware, DrainState
from serve_app.api.middleware.head_requests import HeadMiddleware
from serve_app.api.middleware.origin_check import OriginCheckMiddleware
from serve_app.api.middleware.trusted_hosts import TrustedHostMiddleware
from serve_app.api.playground.playground_route import playground_router
from serve_app.api.route_services import Services
from serve_app.domain.request_limits import FineTuneLimits, Limits

_DESCRIPTION = (
    "Turns text into vectors and reranks candidates. Every error of the native routes is "
    '`{"detail": what to do, "code": a stable word}`; routes for clients of other services answer as those do.'
)

_CORS: Mapping[str, Any] = {
    "allow_methods": ("GET", "POST", "DELETE"),
    "allow_headers": ("*",),
    "expose_headers": (
        "Retry-After", "WWW-Authenticate", "X-Request-ID", "X-Truncated", "X-Truncated-Count", "X-Ignored-Fields",
        "X-Shape", "X-Dtype", "X-Lengths",
    ),
    "max_age": 600,  # seconds that a browser may cache a preflight reply
}  # fmt: skip


def create_app(
    inference: InferenceProtocol,
    jobs: JobsProtocol,
    limits: Limits,
    fine_tune_limits: FineTuneLimits,
    *,
    count_status: Callable[[str, int], None] = lambda path, status: None,
    access: Access | None = None,
    cors_origins: Sequence[str] = (),
    hosts: Collection[str] | None = None,
    drain: DrainState | None = None,
) -> FastAPI:
    """The whole HTTP API over two services.

    Args:
        inference: Encodes and scores texts; a fake in tests.
        jobs: Runs fine-tuning jobs; likewise.
        limits: Limits of a request.
        fine_tune_limits: Limits of a fine-tune.
        count_status: Called with path and status of every response, for the metrics.
        access: API keys and their limits; None for open access.
        cors_origins: Origins of web pages that may call the service; ``*`` for any.
        hosts: Allowed host names beside IP addresses and ``localhost``; None for any.
        drain: Closed when the service stops; None if it never is.
    """
    app = FastAPIOffline(title="Retrieval model server", version=__version__, description=_DESCRIPTION)
    app.state.services = Services(inference, jobs, limits, fine_tune_limits)
    documentation_pages.serve_own_assets(app)
    _add_middleware(app, limits, count_status, access, cors_origins, hosts, drain)
    error_responses.install(app)
    openapi_document.describe(app)
    for dialect in DIALECTS:
        for router in dialect.routers:
            app.include_router(router)
    app.include_router(rerank_dispatch.router)
    app.include_router(playground_router())
    return app


def _add_middleware(
    app: FastAPI,
    limits: Limits,
    count_status: Callable[[str, int], None],
    access: Access | None,
    cors_origins: Sequence[str],
    hosts: Collection[str] | None,
    drain: DrainState | None,
) -> None:
    """Adds the middleware, the innermost first."""
    app.add_middleware(ContentEncodingMiddleware)
    if access is not None:
        app.add_middleware(ApiKeyMiddleware, access=access)
        openapi_security.describe(app)
    app.add_middleware(OriginCheckMiddleware, allowed=cors_origins)
    if hosts is not None:
        app.add_middleware(TrustedHostMiddleware, allowed=hosts)
    if drain is not None:
        app.add_middleware(DrainMiddleware, drain=drain)
    app.add_middleware(
        BodyLimitMiddleware,
        max_body_bytes=limits.max_body_bytes,
        max_bodies_bytes=limits.max_bodies_bytes,
        body_timeout_s=limits.body_timeout_s,
        count_status=count_status,
    )
    app.add_middleware(HeadMiddleware)
    if cors_origins:  # outermost: a page may read errors, too, and a browser's preflight request has no key
        app.add_middleware(CORSMiddleware, allow_origins=cors_origins, **_CORS)
