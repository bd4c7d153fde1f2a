"""Errors become responses here and nowhere else; ``error_shapes`` says what their bodies look like."""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette._utils import get_route_path  # what the router itself looks up
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from serve_app.api import field_suggestions
from serve_app.api.error_bodies import Failure, body_for, dialect_of, status_for
from serve_app.api.field_patterns import IN_WORDS
from serve_app.api.route_index import RouteIndex
from serve_app.domain.errors import InternalError, ServiceError

logger = logging.getLogger(__name__)

_MAX_VIOLATIONS = 5
# of schemas.native.Items, schemas.inputs.Inputs and schemas.rerank.AnyRerankRequest
_UNION_TAGS = frozenset({"<strings>", "<map>", "<records>", "<text>", "<texts>", "<ids>", "<lists>", "<candidates>",
                         "<documents>", "<ranked texts>"})  # fmt: skip


class Problem(BaseModel):
    """The body of an error."""

    detail: str
    code: str
    error_id: str | None = None


class OpenAIError(BaseModel):
    """What is wrong."""

    message: str
    type: str = Field(description="Its class, such as invalid_request_error or rate_limit_error.")
    param: str | None = Field(description="The field at fault.")
    code: str
    error_id: str | None = None


class OpenAIProblem(BaseModel):
    """The body of an error of the routes of OpenAI's, Cohere's, Jina's and vLLM's clients."""

    error: OpenAIError
    message: str = Field(description="The same sentence, for Cohere's clients.")
    detail: str = Field(description="The same sentence, for Jina's clients.")


class TEIProblem(BaseModel):
    """The body of an error of the routes of text-embeddings-inference."""

    error: str
    error_type: str = Field(description="Validation, Overloaded, Unhealthy or Backend.")
    message: str = Field(description="The same sentence.")
    detail: str = Field(description="The same sentence.")
    code: str
    error_id: str | None = None


_DESCRIPTIONS = {
    400: "The model has no such representation; the message names the served models that have.",
    404: "No served model has this name.",
    408: "The deadline passed; the work was dropped.",
    413: "The body is larger than the limit.",
    422: "The body breaks the schema or a limit; the message names the field and the index.",
    429: "The queue or the room for bodies is full, or the key's limit used up; `Retry-After` says when to come back.",
    500: "An unexpected failure: the log has the trace under `error_id`. Or the numbers of a text are not finite.",
    503: "No replica is ready; `Retry-After` says when to come back.",
}
Responses = dict[int | str, dict[str, Any]]


_INVALID = (
    "The body breaks the schema or a limit, or a field cannot be honoured; the message names the field and the index. "
    "Or the model has no such representation."
)


def _errors(body: Any, descriptions: Mapping[int, str]) -> Responses:
    return {status: {"model": body, "description": text} for status, text in descriptions.items()}


_FOREIGN = {status: text for status, text in (_DESCRIPTIONS | {400: _INVALID}).items() if status != 422}
# FastAPI's `responses` of every route that computes: ours, OpenAI's, TEI's, and of /rerank, which is all three
ERRORS = _errors(Problem, _DESCRIPTIONS)
OPENAI_ERRORS, TEI_ERRORS = _errors(OpenAIProblem, _FOREIGN), _errors(TEIProblem, _FOREIGN)
RERANK_ERRORS = _errors(Problem | OpenAIProblem | TEIProblem, _DESCRIPTIONS | {400: _INVALID})


class ProblemResponse(Response):
    """An error. Body and status are made when it is sent, because they depend on the route that was called."""

    def __init__(self, failure: Failure, headers: dict[str, str]) -> None:
        super().__init__(None, failure.status, headers, media_type="application/json")
        self._failure = failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        dialect = dialect_of(scope)
        self.status_code = status_for(dialect, self._failure)
        self.body = orjson.dumps(body_for(dialect, self._failure))
        self.headers["Content-Length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def problem(
    status: int, code: str, detail: str, *, retry_after_s: float | None = None, error_id: str | None = None
) -> Response:
    """An error response; ``Retry-After`` is rounded up to whole seconds."""
    headers = {} if retry_after_s is None else {"Retry-After": str(max(1, math.ceil(retry_after_s)))}
    if status == 408:  # OpenAI's clients try it again twice by themselves, and the same work would be dropped again
        headers["X-Should-Retry"] = "false"
    return ProblemResponse(Failure(status, code, detail, error_id), headers)


def of_service_error(error: ServiceError) -> Response:
    """The response for an expected error; an internal one is logged under an id and keeps its message."""
    if isinstance(error, InternalError):
        return internal(error)
    return problem(error.status, error.code, error.message, retry_after_s=error.retry_after_s)


def internal(error: BaseException) -> Response:
    """A 500 that tells the client nothing but an id; the log has the trace under that id."""
    error_id = uuid.uuid4().hex
    logger.error("internal error %s", error_id, exc_info=error)
    return problem(500, "internal_error", "internal error", error_id=error_id)


def install(app: FastAPI) -> None:
    """Registers the handlers for expected errors; unexpected ones are caught by ``limits.BodyLimitMiddleware``."""
    route_index = cache(lambda: RouteIndex(app.routes))  # when needed: all routes are there then

    @app.exception_handler(ServiceError)
    async def _service(_: Request, error: ServiceError) -> Response:
        return of_service_error(error)

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> Response:
        errors = list(error.errors())
        for i, one in enumerate(errors[:_MAX_VIOLATIONS]):
            errors[i] = field_suggestions.with_hint(request, one)
        return problem(422, "invalid_input", _wrong_type(request, errors) or describe_violations(errors))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if isinstance(error.__cause__, ServiceError):  # raised while the body was read; FastAPI makes it a 400
            return of_service_error(error.__cause__)
        if error.status_code == 400:  # FastAPI's word for a body that is no JSON at all, or no form
            return problem(422, "invalid_input", _unreadable(request, error))
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        headers, path = dict(error.headers or {}), get_route_path(request.scope)
        detail = str(error.detail)
        if error.status_code == 404 and detail == HTTPStatus.NOT_FOUND.phrase:  # a route words its own
            detail = route_index().not_found(request.method, path)
        elif error.status_code == 405:
            detail = route_index().wrong_method(request.method, path)
            headers["Allow"] = ", ".join(route_index().methods_of(path))
        response = problem(error.status_code, code, detail)
        response.headers.update(headers)
        return response


def _wrong_type(request: Request, errors: Sequence[Any]) -> str | None:
    """What to send in place of a body that was not read, because its header says that it is no JSON."""
    content_type = request.headers.get("content-type", "")
    if "json" not in content_type and any(tuple(e["loc"]) == ("body",) for e in errors):
        return f"body: send JSON with the header Content-Type: application/json (it was {content_type or 'absent'!r})"
    return None


def _unreadable(request: Request, error: HTTPException) -> str:
    if request.headers.get("content-type", "").startswith("multipart/"):
        return f"body: not a valid multipart form ({_lower_first(str(error.detail)).rstrip('.')})"
    return "body: not valid JSON in UTF-8, or nested too deeply"


def describe_violations(errors: Sequence[Any], *, within: tuple[int | str, ...] = ()) -> str:
    """A line such as ``items[3]: input should be a valid string`` for the first few violations.

    Args:
        errors: As pydantic lists them.
        within: Where the value that was checked stands.
    """
    lines = [f"{field_name((*within, *e['loc']))}: {_in_words(e)}" for e in errors[:_MAX_VIOLATIONS]]
    if len(errors) > _MAX_VIOLATIONS:
        lines.append(f"and {len(errors) - _MAX_VIOLATIONS} more")
    return "; ".join(lines)


def field_name(location: Sequence[int | str]) -> str:
    """``("body", "items", 3, "text")`` as ``items[3].text``; tags of unions are left out."""
    name = ""
    for part in location[1:] if location and location[0] == "body" else location:
        if isinstance(part, int):
            name += f"[{part}]" if name else f"position {part}"
        elif part not in _UNION_TAGS:
            name += f".{part}" if name else part
    return name or "body"


def _in_words(error: Any) -> str:
    """What pydantic says of a value, but a regular expression as a sentence."""
    if error["type"] == "string_pattern_mismatch":
        return IN_WORDS.get(error["ctx"]["pattern"], _lower_first(error["msg"]))
    return _lower_first(error["msg"])


def _lower_first(message: str) -> str:
    return message if message[1:2].isupper() else message[:1].lower() + message[1:]
