"""Translation of Ray Serve's plain-text errors into error responses of this service."""

from __future__ import annotations

import math

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from serve_app.api import error_responses
from serve_app.domain.errors import DeadlineError, UnavailableError

REQUEST_ID = b"x-request-id"
TIMEOUT = b"x-request-timeout-seconds"


class ServeErrorTranslator:
    """A ``send`` that replaces an error in plain text, which only Serve writes, by an error of this service."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        """Wraps the ``send`` of one request; its error responses have this request id unless Serve sets one."""
        self._scope, self._receive, self._send = scope, receive, send
        self._request_id = request_id
        self._held: Message | None = None
        self._text = b""
        self.has_started = False

    async def send(self, message: Message) -> None:
        """Sends a message, or holds it back to replace it."""
        if message["type"] == "http.response.start":
            if message["status"] >= 400 and _header(message, b"content-type").startswith(b"text/plain"):
                self._held = message
                return
            self.has_started = True
        elif self._held is not None and message["type"] == "http.response.body":
            self._text += message.get("body", b"")
            if not message.get("more_body", False):
                await self.finish()
            return
        await self._send(message)

    async def finish(self) -> None:
        """Sends the replacement of a held response whose body never ended, if there is one."""
        if self._held is not None:
            held, self._held, self.has_started = self._held, None, True
            await self._response(held)(self._scope, self._receive, self._send)

    def _response(self, held: Message) -> Response:
        response = self._error(held["status"], _header(held, b"retry-after"))
        response.headers["X-Request-ID"] = _header(held, REQUEST_ID).decode("latin-1") or self._request_id
        return response

    def _error(self, status: int, retry_after: bytes) -> Response:
        text = self._text.decode(errors="replace")
        if status == 408:
            return error_responses.of_service_error(DeadlineError.after(self._timeout()))
        if status == 503:
            after_s = float(retry_after) if retry_after.isdigit() else None
            return error_responses.of_service_error(
                UnavailableError(
                    "no replica can take the request at the moment; try again later", retry_after_s=after_s
                )
            )
        if status >= 500:
            return error_responses.internal(RuntimeError(f"Ray Serve answered {status}: {text}"))
        return error_responses.error_response(status, "http_error", text or "the request was refused")

    def _timeout(self) -> float | str:
        timeouts = [_number(value) for name, value in self._scope["headers"] if name == TIMEOUT]
        if timeouts and math.isfinite(timeouts[-1]):
            return timeouts[-1]
        return "the service's http_options.request_timeout_s"


def _number(value: bytes) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def _header(message: Message, header: bytes) -> bytes:
    for name, value in message.get("headers", ()):
        if name.lower() == header:
            return bytes(value)
    return b""
