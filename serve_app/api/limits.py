"""The outermost layer of the routes: body size, unexpected errors. Plain ASGI, so it costs nothing."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api import problems
from serve_app.domain.errors import PayloadTooLargeError


class _BodyTooLarge(BaseException):
    """Not an Exception: nothing between the body's reader and the guard may swallow it."""


class Guard:
    """Refuses bodies that are too large and turns anything unexpected into a 500 with an id."""

    def __init__(
        self, app: ASGIApp, *, max_body_bytes: int, count_status: Callable[[str, int], None] = lambda path, status: None
    ) -> None:
        """Wraps an application.

        Args:
            app: What to guard.
            max_body_bytes: A longer body is answered 413, by its Content-Length where there is one, else as
                soon as that much has arrived.
            count_status: Called with path and status of every response, for the metrics; the path is the
                route's template, or ``other`` where no route was found, so that nobody can make up labels.
        """
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._count_status = count_status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False
        received = 0

        async def counted_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._count_status(getattr(scope.get("route"), "path", "other"), message["status"])
            await send(message)

        async def bounded_receive() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._max_body_bytes:
                    raise _BodyTooLarge
            return message

        try:
            if _content_length(scope) > self._max_body_bytes:
                raise _BodyTooLarge
            await self._app(scope, bounded_receive, counted_send)
        except _BodyTooLarge:
            error = PayloadTooLargeError(
                f"the body is larger than {self._max_body_bytes} bytes; send fewer texts at once"
            )
            response = problems.of_service_error(error)
            response.headers["Connection"] = "close"  # the rest of the body is not read
            await response(scope, receive, counted_send)
        except Exception as error:
            if started:  # too late for another status: break the connection, so that nobody takes half for whole
                raise
            await problems.internal(error)(scope, receive, counted_send)


def _content_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            try:
                return int(value)
            except ValueError:
                return 0
    return 0
