"""Authentication and rate limits by API key. Plain ASGI, installed only if keys are configured.

Every path needs a key except a few, so a new route is protected by default.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fastapi.responses import Response
from starlette._utils import get_route_path  # the path that the router matches: another one would be a hole
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api import error_responses
from serve_app.api.middleware.token_quota import Limiter, TokenBudget, admit
from serve_app.domain.errors import ForbiddenError, ServiceError, UnauthenticatedError
from serve_app.domain.usage import measured
from serve_app.security import api_keys
from serve_app.security.api_keys import ApiKey, KeyRing

logger = logging.getLogger(__name__)

OPEN = frozenset(
    {"/", "/livez", "/ping", "/readyz", "/health", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}
)  # for probes and people; none of them reveals a secret
_OPEN_ASSETS = "/static-offline-docs/"  # scripts and styles of the documentation pages
_ADMIN = ("/fine-tune", "/train-status", "/jobs", "/v1/fine_tuning", "/v1/files")
_TOKEN_BYTES = 3  # of a body for a token, JSON included; most texts have four, so the estimate is seldom too low
_MOST_BYTES = 2**31  # the body itself is bounded elsewhere
_POLICY_VIOLATION = 1008  # of a web socket


@dataclass(frozen=True)
class Access:
    """Access by API key.

    Attributes:
        keys: Returns the current keys.
        limiter: Counts requests and tokens of keys with limits.
    """

    keys: Callable[[], KeyRing]
    limiter: Limiter


def scope_for(method: str, path: str) -> api_keys.Scope | None:
    """The scope that a request requires; None if it needs no key."""
    if method in {"GET", "HEAD"} and (path in OPEN or path.startswith(_OPEN_ASSETS)):
        return None
    return api_keys.Scope.ADMIN if method == "DELETE" or path.startswith(_ADMIN) else api_keys.Scope.USE


class ApiKeyMiddleware:
    """Passes a request on if its key allows it; the body of a refused request is not read."""

    def __init__(self, app: ASGIApp, *, access: Access) -> None:
        """Wraps an application."""
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":  # no route has web sockets; one that is added later starts closed
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        elif (needed := scope_for(scope["method"], get_route_path(scope))) is None:
            await self._app(scope, receive, send)
        else:
            key = self._access.keys().match(presented(scope))
            await self._serve(key, needed, scope, receive, _logged(key, scope, send))

    async def _serve(
        self, key: ApiKey | None, needed: api_keys.Scope, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            known = _authorised(key, needed)
            reserved = (
                await admit(self._access.limiter, known, estimated_tokens(scope, needed)) if known.is_limited else 0
            )
        except ServiceError as error:
            await _rejection(error, needed)(scope, receive, send)
            return
        if known.tokens_per_minute is None:
            await self._app(scope, receive, send)
            return
        budget = TokenBudget(known, known.tokens_per_minute, reserved, self._access.limiter)
        with measured(budget.require) as usage:
            try:
                await self._app(scope, receive, send)
            finally:
                budget.settle(usage.tokens)


def estimated_tokens(scope: Scope, needed: api_keys.Scope) -> int:
    """Estimated tokens of a request, by the bytes of its body; 0 for an unknown size or no texts."""
    if needed is not api_keys.Scope.USE or scope["method"] != "POST":
        return 0
    length = dict(scope["headers"]).get(b"content-length", b"")
    return min(int(length), _MOST_BYTES) // _TOKEN_BYTES if length.isdigit() and len(length) < 20 else 0


def presented(scope: Scope) -> Iterator[bytes]:
    """The keys in a request's headers: the first ``Authorization: Bearer`` and the first ``X-API-Key``."""
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name, value)
    scheme, _, token = headers.get(b"authorization", b"").strip().partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        yield token.strip()
    if key := headers.get(b"x-api-key", b"").strip():
        yield key


def _authorised(key: ApiKey | None, needed: api_keys.Scope) -> ApiKey:
    if key is None:
        raise UnauthenticatedError("send a valid API key: Authorization: Bearer KEY, or X-API-Key: KEY")
    if not key.may(needed):
        raise ForbiddenError(f"the API key {key.name!r} lacks the scope '{needed}', which this route requires")
    return key


def _rejection(error: ServiceError, needed: api_keys.Scope) -> Response:
    response = error_responses.of_service_error(error)
    if isinstance(error, UnauthenticatedError):
        response.headers["WWW-Authenticate"] = "Bearer"
    elif isinstance(error, ForbiddenError):  # RFC 6750, 3.1
        response.headers["WWW-Authenticate"] = f'Bearer error="insufficient_scope", scope="{needed}"'
    return response


def _logged(key: ApiKey | None, scope: Scope, send: Send) -> Send:
    """Logs key, route and status of a request; Ray Serve's access log has the same request id, but no key."""

    async def logged_send(message: Message) -> None:
        if message["type"] == "http.response.start":
            name = "unknown" if key is None else key.name
            path = getattr(scope.get("route"), "path", "other")  # the template: clients cannot write into the log
            logger.info("API key %s: %s %s %d", name, scope["method"], path, message["status"])
        await send(message)

    return logged_send
