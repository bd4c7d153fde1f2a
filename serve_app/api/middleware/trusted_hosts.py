"""Protection against DNS rebinding by the ``Host`` header, for a service without API keys. Plain ASGI.

A web page can have its own name resolve to 127.0.0.1 after it is loaded (DNS rebinding). For the browser, and for
``OriginCheckMiddleware``, it then has the same origin as a service that listens there, and may read its replies. It
cannot choose the header ``Host``, which is the page's name. An IP address cannot be rebound, and ``localhost`` never
leaves the machine (RFC 6761).

Starlette's middleware of this name is not used: it answers in plain text, and its host patterns allow neither all IP
addresses nor IPv6 addresses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api import error_responses
from serve_app.domain.errors import ForeignHostError


class TrustedHostMiddleware:
    """Refuses requests for a host name that is not allowed; a request without one does not come from a browser."""

    def __init__(self, app: ASGIApp, *, allowed: Collection[str]) -> None:
        """Wraps an application.

        Args:
            app: The application to protect.
            allowed: Further host names, in lower case and without a port; ``*`` for any.
        """
        self._app = app
        self._allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        hosts = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"host"]
        if scope["type"] == "http" and not all(map(self._is_allowed, hosts)):
            error = ForeignHostError(
                f"Host {hosts[0][:100]!r} is not allowed; use localhost or add it to security.allowed_hosts"
            )
            await error_responses.of_service_error(error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_allowed(self, host: str) -> bool:
        name = _without_port(host).rstrip(".").lower()
        return (
            name == "localhost"
            or name.endswith(".localhost")
            or _is_address(name)
            or name in self._allowed
            or "*" in self._allowed
        )


def _without_port(host: str) -> str:
    if host.startswith("["):  # an IPv6 address
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
