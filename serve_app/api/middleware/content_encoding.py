"""Refusal of compressed bodies: body limits count received bytes, and a small compressed body can expand a lot."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api import error_responses
from serve_app.domain.errors import UnsupportedEncodingError

_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_NAME_CHARS = 100


class ContentEncodingMiddleware:
    """Answers 415 to a body with a ``Content-Encoding``, and names it; plain ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        """Wraps an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        encoding = _content_encoding(scope) if scope["type"] == "http" else ""
        if not encoding:
            await self._app(scope, receive, send)
            return
        error = UnsupportedEncodingError(
            f"header Content-Encoding: {encoding[:_NAME_CHARS]!r} is not read; send the body uncompressed"
        )
        response = error_responses.of_service_error(error)
        response.headers["Accept-Encoding"] = "identity"  # RFC 9110, 12.5.3
        response.headers["Connection"] = "close"  # the body is not read
        await response(scope, receive, send)


def _content_encoding(scope: Scope) -> str:
    """The content encodings of a body, except ``identity``."""
    if scope["method"] in _WITHOUT_BODY:
        return ""
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"content-encoding"]
    encodings = [encoding.strip().lower() for value in values for encoding in value.split(",")]
    return ", ".join(encoding for encoding in encodings if encoding not in {"", "identity"})
