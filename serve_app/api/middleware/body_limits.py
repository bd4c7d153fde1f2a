"""The outermost middleware of the application: limits of request bodies, and unexpected errors. Plain ASGI."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api import error_responses
from serve_app.domain.errors import DeadlineError, PayloadTooLargeError, QueueFullError, ServiceError

_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})  # methods whose routes read no body
_SLOWEST = 16 * 1024  # bytes a second; a slower client occupies a slot that others need


class _Refused(BaseException):
    """Not an Exception: no handler between the body's reader and the middleware may catch it."""

    def __init__(self, error: ServiceError) -> None:
        super().__init__(error)
        self.error = error


class BodyLimitMiddleware:
    """Refuses bodies over the limits of size, speed and total memory; answers 500 with an id to unexpected errors."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        max_bodies_bytes: float = math.inf,
        body_timeout_s: float = 20.0,
        count_status: Callable[[str, int], None] = lambda path, status: None,
    ) -> None:
        """Wraps an application.

        Args:
            app: The application.
            max_body_bytes: A longer body is answered 413, by its Content-Length where there is one, else as
                soon as that much has arrived.
            max_bodies_bytes: Limit of the bodies of all requests in flight together; a body beyond it is answered 429.
                Received bytes count: a client that announces a large body and sends nothing occupies no memory.
            body_timeout_s: A body that takes this many seconds and is slower than 16 KiB a second is answered 408.
            count_status: Called with path and status of every response, for the metrics; the path is the
                route's template, or ``other`` without a route, so that clients cannot create labels.
        """
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._max_bodies_bytes = max_bodies_bytes
        self._held = 0  # bytes of the bodies of all requests in flight
        self._body_timeout_s = body_timeout_s
        self._count_status = count_status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False
        body = _Body(receive)

        async def counted_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._count_status(getattr(scope.get("route"), "path", "other"), message["status"])
            await send(message)

        try:
            bounded_receive = self._bounded(scope, body)
            if scope["method"] in _WITHOUT_BODY:
                await _take(body, bounded_receive)
            await self._app(scope, bounded_receive, counted_send)
        except _Refused as refused:
            if started:  # a response that has started cannot be replaced
                return
            response = error_responses.of_service_error(refused.error)
            response.headers["Connection"] = "close"  # the rest of the body is not read
            await response(scope, receive, counted_send)
        except Exception as error:
            if started:  # too late for another status: a broken connection marks the response as incomplete
                raise
            await error_responses.internal(error)(scope, receive, counted_send)
        finally:
            self._held -= body.received

    def _bounded(self, scope: Scope, body: _Body) -> Receive:
        """A ``receive`` that ends the request when its body breaks a limit.

        Raises:
            _Refused: At once, for a Content-Length over the limit.
        """
        self._require_within_limits(_content_length(scope), more=_content_length(scope))
        began = asyncio.get_running_loop().time()

        async def bounded_receive() -> Message:
            if body.is_complete:  # only the disconnect is left to come, at any time
                return await body.receive()
            try:
                async with asyncio.timeout_at(began + self._body_timeout_s + body.received / _SLOWEST):
                    message = await body.receive()
            except TimeoutError:
                raise _Refused(_too_slow(body.received)) from None
            if message["type"] == "http.request":
                more = len(message.get("body", b""))
                self._require_within_limits(body.received + more, more=more)
                body.received += more
                self._held += more
                body.is_complete = not message.get("more_body", False)
            return message

        return bounded_receive

    def _require_within_limits(self, size: int, *, more: int) -> None:
        """Raises ``_Refused`` for ``size`` bytes over the limit of a body, or ``more`` over the limit of all."""
        if size > self._max_body_bytes:
            limit = self._max_body_bytes
            raise _Refused(PayloadTooLargeError(f"the body is larger than {limit} bytes; send fewer texts at once"))
        if more and self._held + more > self._max_bodies_bytes:
            raise _Refused(QueueFullError("too many large bodies are being worked on; try again later"))


class _Body:
    """A body that is being received."""

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.received = 0
        self.is_complete = False


async def _take(body: _Body, receive: Receive) -> None:
    """Reads a body that no route reads: unread, it would wait in an unbounded queue of the server."""
    while not body.is_complete and (await receive())["type"] == "http.request":
        pass


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
