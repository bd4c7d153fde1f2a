"""The end of a service as its clients see it: what is inside is answered, and nothing is let in any more."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api import error_responses
from serve_app.domain.errors import UnavailableError

_EVENTS = (b"content-type", b"text/event-stream")


class DrainState:
    """Open until somebody closes it, for good.

    Attributes:
        is_closed: Nothing is let in any more.
        inside: Requests that have been let in and not been answered; streams of events, which may last for hours, do
            not count.
    """

    def __init__(self) -> None:
        self.is_closed = False
        self.inside = 0
        self._is_empty = asyncio.Event()

    async def close(self) -> None:
        """Lets nobody in any more; returns when nobody is inside."""
        self.is_closed = True
        if self.inside:
            await self._is_empty.wait()

    def enter(self) -> None:
        """Lets a request in."""
        self.inside += 1

    def leave(self) -> None:
        """A request was answered, or its client has gone."""
        self.inside -= 1
        if self.is_closed and not self.inside:
            self._is_empty.set()


class DrainMiddleware:
    """Refuses requests once the door is closed: 503, and when to come back."""

    def __init__(self, app: ASGIApp, *, door: DrainState) -> None:
        """Wraps an application."""
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._door.is_closed:
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
                self._door.leave()
            await send(message)

        self._door.enter()
        try:
            await self._app(scope, receive, seen_send)
        finally:
            if counts:
                self._door.leave()
