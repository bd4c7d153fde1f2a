"""Error responses: the only place where errors become HTTP responses."""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Sequence
from functools import cache
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette._utils import get_route_path  # the path that the router matches
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from serve_app.api import field_suggestions
from serve_app.api.dialects.dialect import Failure
from serve_app.api.dialects.dialect_registry import dialect_of
from serve_app.api.route_index import RouteIndex
from serve_app.api.violations import MAX_VIOLATIONS, describe_violations, lower_first
from serve_app.domain.errors import InternalError, ServiceError

logger = logging.getLogger(__name__)


class ErrorResponse(Response):
    """An error response, with the body and status of the dialect of the request that it answers."""

    def __init__(self, failure: Failure, headers: dict[str, str]) -> None:
        super().__init__(None, failure.status, headers, media_type="application/json")
        self._failure = failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the response."""
        dialect = dialect_of(scope)
        self.status_code = dialect.status_of(self._failure)
        self.body = orjson.dumps(dialect.error_body(self._failure))
        self.headers["Content-Length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def error_response(
    status: int, code: str, detail: str, *, retry_after_s: float | None = None, error_id: str | None = None
) -> Response:
    """An error response; ``Retry-After`` is rounded up to whole seconds."""
    headers = {} if retry_after_s is None else {"Retry-After": str(max(1, math.ceil(retry_after_s)))}
    if status == 408:  # OpenAI's clients retry twice by default, and the same work would be dropped again
        headers["X-Should-Retry"] = "false"
    return ErrorResponse(Failure(status, code, detail, error_id), headers)


def of_service_error(error: ServiceError) -> Response:
    """The response for an expected error; an internal one is logged under an id and keeps its message."""
    if isinstance(error, InternalError):
        return internal(error)
    return error_response(error.status, error.code, error.message, retry_after_s=error.retry_after_s)


def internal(error: BaseException) -> Response:
    """A 500 with an id and no details; the log has the trace under that id."""
    error_id = uuid.uuid4().hex
    logger.error("internal error %s", error_id, exc_info=error)
    return error_response(500, "internal_error", "internal error", error_id=error_id)


def install(app: FastAPI) -> None:
    """Registers the handlers for expected errors; unexpected ones are caught by ``BodyLimitMiddleware``."""
    route_index = cache(lambda: RouteIndex(app.routes))  # built on first use, when all routes are included

    @app.exception_handler(ServiceError)
    async def _service(_: Request, error: ServiceError) -> Response:
        return of_service_error(error)

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> Response:
        errors = list(error.errors())
        for i, one in enumerate(errors[:MAX_VIOLATIONS]):
            errors[i] = field_suggestions.with_hint(request, one)
        return error_response(422, "invalid_input", _wrong_type(request, errors) or describe_violations(errors))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if isinstance(error.__cause__, ServiceError):  # raised while the body was read; FastAPI turns it into a 400
            return of_service_error(error.__cause__)
        if error.status_code == 400:  # FastAPI's error for an invalid JSON body or form
            return error_response(422, "invalid_input", _unreadable(request, error))
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        headers, path = dict(error.headers or {}), get_route_path(request.scope)
        detail = str(error.detail)
        if error.status_code == 404 and detail == HTTPStatus.NOT_FOUND.phrase:  # not a route's own message
            detail = route_index().not_found(request.method, path)
        elif error.status_code == 405:
            detail = route_index().wrong_method(request.method, path)
            headers["Allow"] = ", ".join(route_index().methods_of(path))
        response = error_response(error.status_code, code, detail)
        response.headers.update(headers)
        return response


def _wrong_type(request: Request, errors: Sequence[Any]) -> str | None:
    """The message for a body that was not read because its header names another type than JSON."""
    content_type = request.headers.get("content-type", "")
    if "json" not in content_type and any(tuple(e["loc"]) == ("body",) for e in errors):
        return f"body: send JSON with the header Content-Type: application/json (it was {content_type or 'absent'!r})"
    return None


def _unreadable(request: Request, error: HTTPException) -> str:
    if request.headers.get("content-type", "").startswith("multipart/"):
        return f"body: not a valid multipart form ({lower_first(str(error.detail)).rstrip('.')})"
    return "body: not valid JSON in UTF-8, or nested too deeply"
