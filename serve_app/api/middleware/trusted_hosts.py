"""The name by which a service of this machine was asked for. Plain ASGI, and only there where nothing else protects it.

A web page can have its own name resolve to 127.0.0.1 once it is loaded (DNS rebinding). Then it is of one origin with a
service that listens there, for the browser and for ``origins``, and may even read its answers. But it can not choose
the header ``Host``: that is the page's name. An IP address can not be rebound, and ``localhost`` never leaves the
machine (RFC 6761).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api import error_responses
from serve_app.domain.errors import ForeignHostError


class TrustedHostMiddleware:
    """Refuses requests for any other name; a client that names none is no browser and is let through."""

    def __init__(self, app: ASGIApp, *, allowed: Collection[str]) -> None:
        """Wraps an application.

        Args:
            app: What to guard.
            allowed: Further names, in lower case and without a port; ``*`` for any.
        """
        self._app = app
        self._allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        hosts = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"host"]
        if scope["type"] == "http" and not all(map(self._is_known, hosts)):
            error = ForeignHostError(
                f"this service is there for its own machine and is not called {hosts[0][:100]!r}; ask for it as "
                f"localhost, or name it in security.allowed_hosts (say, behind a proxy that keeps the name)"
            )
            await error_responses.of_service_error(error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_known(self, host: str) -> bool:
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
