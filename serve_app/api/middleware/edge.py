"""The outermost middleware, around Ray Serve: makes headers readable for Serve and translates Serve's own errors.

Ray Serve decodes some headers before it calls the application, and a byte that is not UTF-8 ends in a plain 500. It
also answers some requests itself, in plain text: after a deadline, or without a ready replica. With this middleware
every error has a body of this service. Serve loads it by ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` (see
configs/serve.env).
"""

from __future__ import annotations

import re
import uuid

from starlette._utils import get_route_path
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api import error_responses
from serve_app.api.middleware.serve_errors import REQUEST_ID, TIMEOUT, ServeErrorTranslator
from serve_app.domain.errors import InvalidHeaderError

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
    """The middlewares of Ray Serve's HTTP servers; Serve calls this function."""
    return [Middleware(EdgeMiddleware)]


class EdgeMiddleware:
    """Passes on headers that Serve can read, and translates Serve's own errors.

    ``X-Request-ID`` is cut to 128 characters of a safe alphabet, because Serve logs and echoes it. A header that Serve
    reads and that is not printable ASCII is answered 400, as is a time limit that is not positive, which Serve would
    ignore; the values of all other headers are passed on as UTF-8.
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
        translated = ServeErrorTranslator(scope, receive, send, request_id)
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
    except ValueError:  # the route answers with an error
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
