"""/docs and /redoc without requests to other hosts: no fonts, no scripts, no logo of Redoc."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import fastapi_offline
from fastapi import FastAPI
from fastapi.responses import Response
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_REDOC = "redoc.standalone.js"
_LOGO = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
_EMPTY_IMAGE = b"data:image/svg+xml,%3Csvg xmlns=%22http://www.w3.org/2000/svg%22/%3E"
_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'none'",
    ]
)


def serve_own_assets(app: FastAPI) -> None:
    """Serves Redoc's script without the logo that it would load, and sends both pages with a policy."""
    app.router.routes.insert(0, Route(f"/static-offline-docs/{_REDOC}", _redoc))  # before the folder with the rest
    app.add_middleware(DocumentationPolicyMiddleware)


async def _redoc(_: Request) -> Response:
    return Response(redoc_script(), media_type="text/javascript", headers={"Cache-Control": "no-cache"})


@cache
def redoc_script() -> bytes:
    """Redoc's script, whose footer shows no logo."""
    script = (Path(fastapi_offline.__file__).parent / "static" / _REDOC).read_bytes()
    return script.replace(_LOGO, _EMPTY_IMAGE)


class DocumentationPolicyMiddleware:
    """Adds a ``Content-Security-Policy`` to pages that have none: they load from this service alone. Plain ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        """Wraps an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html"):
                    headers.setdefault("Content-Security-Policy", _POLICY)
            await send(message)

        await self._app(scope, receive, with_policy if scope["type"] == "http" else send)
