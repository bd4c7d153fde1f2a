"""The outermost layer of the routes: bodies that are too large or too slow, unexpected errors.

Plain ASGI, so it costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api import problems
from serve_app.domain.errors import DeadlineError, PayloadTooLargeError, ServiceError

_SLOWEST = 16 * 1024  # bytes a second; a client below that holds a place that others need


class _Refused(BaseException):
    """Not an Exception: nothing between the body's reader and the guard may swallow it."""

    def __init__(self, error: ServiceError) -> None:
        super().__init__(error)
        self.error = error


class Guard:
    """Refuses bodies that are too large or too slow and turns anything unexpected into a 500 with an id."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        body_timeout_s: float = 20.0,
        count_status: Callable[[str, int], None] = lambda path, status: None,
    ) -> None:
        """Wraps an application.

        Args:
            app: What to guard.
            max_body_bytes: A longer body is answered 413, by its Content-Length where there is one, else as
                soon as that much has arrived.
            body_timeout_s: A body that takes this many seconds and is slower than 16 KiB a second is answered 408.
            count_status: Called with path and status of every response, for the metrics; the path is the
                route's template, or ``other`` where no route was found, so that nobody can make up labels.
        """
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._count_status = count_status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def counted_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._count_status(getattr(scope.get("route"), "path", "other"), message["status"])
            await send(message)

        try:
            await self._app(scope, self._bounded(scope, receive), counted_send)
        except _Refused as refused:
            if started:  # a reply that has begun can not become another one
                return
            response = problems.of_service_error(refused.error)
            response.headers["Connection"] = "close"  # the rest of the body is not read
            await response(scope, receive, counted_send)
        except Exception as error:
            if started:  # too late for another status: break the connection, so that nobody takes half for whole
                raise
            await problems.internal(error)(scope, receive, counted_send)

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """Reads the body, and ends the request when it becomes too large or too slow.

        Raises:
            _Refused: At once for a length that is too large.
        """
        if _content_length(scope) > self._max_body_bytes:
            raise _Refused(self._too_large())
        began = asyncio.get_running_loop().time()
        received = 0
        complete = False

        async def bounded_receive() -> Message:
            nonlocal received, complete
            if complete:  # what is left to come is that the client goes, and that takes as long as it takes
                return await receive()
            try:
                async with asyncio.timeout_at(began + self._body_timeout_s + received / _SLOWEST):
                    message = await receive()
            except TimeoutError:
                raise _Refused(_too_slow(received)) from None
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if received > self._max_body_bytes:
                    raise _Refused(self._too_large())
            return message

        return bounded_receive

    def _too_large(self) -> PayloadTooLargeError:
        return PayloadTooLargeError(f"the body is larger than {self._max_body_bytes} bytes; send fewer texts at once")


def _too_slow(received: int) -> DeadlineError:
    return DeadlineError(f"the body comes too slowly ({received} bytes so far); send it at once")


def _content_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            try:
                return int(value)
            except ValueError:
                return 0
    return 0
