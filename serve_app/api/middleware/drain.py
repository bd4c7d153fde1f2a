"""Draining: a stopping service completes the requests in flight and refuses new ones."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api import error_responses
from serve_app.domain.errors import UnavailableError

_EVENTS = (b"content-type", b"text/event-stream")


class DrainState:
    """Counts requests in flight; closed once, for good.

    Attributes:
        is_closed: New requests are refused.
        in_flight: Accepted requests without a complete response; event streams, which may last for hours, do not count.
    """

    def __init__(self) -> None:
        self.is_closed = False
        self.in_flight = 0
        self._is_empty = asyncio.Event()

    async def close(self) -> None:
        """Refuses new requests; returns when none is in flight."""
        self.is_closed = True
        if self.in_flight:
            await self._is_empty.wait()

    def begin(self) -> None:
        """Counts an accepted request."""
        self.in_flight += 1

    def end(self) -> None:
        """Counts a request that was answered or whose client has disconnected."""
        self.in_flight -= 1
        if self.is_closed and not self.in_flight:
            self._is_empty.set()


class DrainMiddleware:
    """Answers 503 to requests that arrive after the drain state is closed."""

    def __init__(self, app: ASGIApp, *, drain: DrainState) -> None:
        """Wraps an application."""
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._drain.is_closed:
            response = error_responses.of_service_error(UnavailableError("the service is stopping; try again later"))
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        counts = True

        async def seen_send(message: Message) -> None:
            nonlocal counts
            if message["type"] == "http.response.start" and any(
                name.lower() == _EVENTS[0] and value.startswith(_EVENTS[1]) for name, value in message["headers"]
            ):
                counts = False
                self._drain.end()
            await send(message)

        self._drain.begin()
        try:
            await self._app(scope, receive, seen_send)
        finally:
            if counts:
                self._drain.end()
