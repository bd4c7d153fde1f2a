"""HEAD for every GET route: load balancers and monitors use it."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _EndedError(OSError):
    """Raised by ``send`` after the end, as for a disconnected client: it stops an endless body."""


class HeadMiddleware:
    """Answers HEAD with status and headers of the GET of the same path. Plain ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        """Wraps an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        ended = False

        async def send_head(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                await send(message)
            elif ended:
                raise _EndedError("the reply to HEAD has ended")
            else:
                ended = True
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        try:
            await self._app({**scope, "method": "GET"}, receive, send_head)
        except Exception:  # also in a group, or wrapped by the framework
            if not ended:
                raise
