"""The outermost layer, around Ray Serve itself: what Serve reads of a request, and what it answers on its own.

Ray Serve decodes some headers before the application is called, and a byte that is not UTF-8 ends in a plain 500. It
also answers some requests itself, in plain text: a deadline that passed, a replica that is not ready. This middleware
stands around both, so that a client reads this service's error bodies whatever happens. Serve loads it by
``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` (see configs/serve.env).
"""

from __future__ import annotations

import math
import re
import uuid

from starlette._utils import get_route_path
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api import error_responses
from serve_app.domain.errors import DeadlineError, InvalidHeaderError, UnavailableError

REQUEST_ID = b"x-request-id"
TIMEOUT = b"x-request-timeout-seconds"
MAX_REQUEST_ID_CHARS = 128
_UNSAFE = re.compile(rb"[^A-Za-z0-9._~:/+=@-]")
# Read by Serve, in either spelling: a proxy may turn one into the other.
_READ_BY_SERVE = frozenset(
    {"x_request_timeout_seconds", "x_request_disconnect_disabled", "x_session_id", "serve_multiplexed_model_id",
     "traceparent", "tracestate"}
)  # fmt: skip
_LONGEST_S = 1e6  # Serve hands the number to the event loop, which cannot wait for ever
_OF_SERVE = "/-/"  # health and routes, for balancers
_POLICY_VIOLATION = 1008  # of a web socket

Headers = list[tuple[bytes, bytes]]


def middlewares() -> list[Middleware]:
    """What Ray Serve calls to learn which middlewares its HTTP servers shall have."""
    return [Middleware(EdgeMiddleware)]


class EdgeMiddleware:
    """Passes on headers that Serve can read, and turns Serve's own errors into this service's.

    ``X-Request-ID`` is cut to 128 characters of a safe alphabet, because Serve logs and echoes it. A header that Serve
    reads and that is not printable ASCII is answered 400, as is a time limit that is not positive, which Serve would
    read as none at all; the values of all others are passed on as UTF-8.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wraps Serve's own application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        try:
            scope["headers"], request_id = readable_headers(scope["headers"])
        except InvalidHeaderError as error:
            await _reject(error, scope, receive, send)
            return
        if scope["type"] == "websocket" or get_route_path(scope).startswith(_OF_SERVE):
            await self._app(scope, receive, send)
            return
        translated = _Translator(scope, receive, send, request_id)
        try:
            await self._app(scope, receive, translated.send)
            await translated.finish()
        except Exception as error:
            if translated.has_started:
                raise
            response = error_responses.internal(error)
            response.headers["X-Request-ID"] = request_id
            await response(scope, receive, send)


def readable_headers(headers: Headers) -> tuple[Headers, str]:
    """The headers as Serve can read them, with exactly one request id.

    Raises:
        InvalidHeaderError: One that Serve reads is not printable ASCII, or the time limit is not positive.
    """
    readable: Headers = []
    request_id = b""
    for name, value in headers:
        if name == REQUEST_ID:
            request_id = request_id or _UNSAFE.sub(b"", value)[:MAX_REQUEST_ID_CHARS]
            continue
        if name.decode("latin-1").lower().replace("-", "_") in _READ_BY_SERVE:
            if not value.isascii() or not value.decode("ascii").isprintable():
                raise InvalidHeaderError(f"header {name.decode('latin-1')}: must be printable ASCII")
            if name == TIMEOUT:
                value = _bounded(value)
        elif not value.isascii():
            value = _as_utf8(value)
        readable.append((name, value))
    request_id = request_id or uuid.uuid4().hex.encode()
    readable.append((REQUEST_ID, request_id))
    return readable, request_id.decode()


def _bounded(value: bytes) -> bytes:
    try:
        seconds = float(value)
    except ValueError:  # the route says what is wrong with it
        return value
    if not seconds > 0:  # nan, too
        raise InvalidHeaderError(
            f"header X-Request-Timeout-Seconds: must be a number of seconds above 0, not {value.decode()[:40]!r}"
        )
    return str(int(_LONGEST_S)).encode() if seconds > _LONGEST_S else value


def _as_utf8(value: bytes) -> bytes:
    try:
        value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1").encode()
    return value


async def _reject(error: InvalidHeaderError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        return
    response = error_responses.of_service_error(error)
    given = [value for name, value in scope["headers"] if name == REQUEST_ID]
    _, request_id = readable_headers([(REQUEST_ID, value) for value in given])
    response.headers["X-Request-ID"] = request_id
    response.headers["Connection"] = "close"  # the body is not read
    await response(scope, receive, send)


class _Translator:
    """Holds back an error in plain text, which only Serve writes, and sends this service's own in its place."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._request_id = request_id
        self._held: Message | None = None
        self._text = b""
        self.has_started = False

    async def send(self, message: Message) -> None:
        """Passes a message on, or translates it."""
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
        """Sends what is held back, also where its body never ended; nothing if there is none."""
        if self._held is not None:
            held, self._held, self.has_started = self._held, None, True
            await self._response(held)(self._scope, self._receive, self._send)

    def _response(self, held: Message) -> Response:
        response = self._error(held["status"], _header(held, b"retry-after"))
        response.headers["X-Request-ID"] = _header(held, REQUEST_ID).decode("latin-1") or self._request_id
        return response

    def _error(self, status: int, retry_after: bytes) -> Response:
        said = self._text.decode(errors="replace")
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
            return error_responses.internal(RuntimeError(f"Ray Serve answered {status}: {said}"))
        return error_responses.error_response(status, "http_error", said or "the request was refused")

    def _timeout(self) -> float | str:
        wanted = [_number(value) for name, value in self._scope["headers"] if name == TIMEOUT]
        return wanted[-1] if wanted and math.isfinite(wanted[-1]) else "the service's http_options.request_timeout_s"


def _number(value: bytes) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def _header(message: Message, wanted: bytes) -> bytes:
    for name, value in message.get("headers", ()):
        if name.lower() == wanted:
            return bytes(value)
    return b""
