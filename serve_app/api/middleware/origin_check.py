"""Protection against cross-site requests: a browser lets any page post forms to any address it can reach. Plain ASGI.

CORS decides which replies a page may read; this middleware decides which requests a page may send.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api import error_responses
from serve_app.domain.errors import ForeignOriginError

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # they change nothing
_OWN_SITE = frozenset({"same-origin", "none"})  # none: typed into the address bar


class OriginCheckMiddleware:
    """Refuses requests of pages of other origins, unless the origin is allowed.

    Requests of clients other than browsers have no origin and pass.
    """

    def __init__(self, app: ASGIApp, *, allowed: Collection[str] = ()) -> None:
        """Wraps an application.

        Args:
            app: The application to protect.
            allowed: Origins of pages that may call it; ``*`` for any.
        """
        self._app = app
        self._allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] == "http" and scope["method"] not in _SAFE and (origin := self._foreign(scope)):
            error = ForeignOriginError(
                f"pages of {origin[:100]} may not call this service; security.cors_origins names those that may"
            )
            await error_responses.of_service_error(error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _foreign(self, scope: Scope) -> str | None:
        """The origin of the page that sends the request, if it is not allowed."""
        headers: dict[bytes, str] = {name: value.decode("latin-1") for name, value in scope["headers"]}
        origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
        if origin in self._allowed or "*" in self._allowed:
            return None
        if site is not None:  # set by the browser; also valid behind a proxy that changes the host
            return None if site in _OWN_SITE else origin or "another site"
        if origin is None or origin.partition("://")[2] == headers.get(b"host"):
            return None
        return origin or "another site"
