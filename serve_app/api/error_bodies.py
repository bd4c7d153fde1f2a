"""The shapes of an error's body: which one a client can read depends on the route it called.

========  ===============================================  ==========================================================
dialect   routes                                           body
========  ===============================================  ==========================================================
native    ours, /rerank with ``candidates``                ``{"detail", "code"}``
openai    /v1, /v2, /embeddings, /score, /rerank with      ``{"error": {"message", "type", "param", "code"}}`` with
          ``documents``                                    ``message`` (Cohere) and ``detail`` (Jina) beside it
tei       text-embeddings-inference's, /rerank with        ``{"error", "error_type"}`` with ``message``, ``detail``
          ``texts``                                        and ``code`` beside it
========  ===============================================  ==========================================================

The message is the same in all, a sentence that names the field, and so is ``error_id`` where the log has more. A bad
value is 422 on our own routes and 400 on the others, as their services say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from starlette._utils import get_route_path  # what the router itself looks up
from starlette.types import Scope

Dialect = Literal["native", "openai", "tei"]

_TEI_PATHS = frozenset(
    {"/", "/embed", "/embed_all", "/embed_sparse", "/similarity", "/tokenize", "/decode", "/predict", "/info"}
)
_OPENAI_PATHS = frozenset({"/embeddings", "/score"})
_SEVERAL = "/rerank"  # its body says whose client sent it
_LISTS: dict[Dialect, frozenset[str]] = {
    "openai": frozenset({"documents", "passages"}),
    "tei": frozenset({"texts"}),
    "native": frozenset({"candidates"}),
}
_NOTED = "dialect"  # key of the scope

_FIELD = re.compile(r"([a-z][a-z0-9_]*)(\[[^\]]*\]|\.\w+)*(?=: )")
_INVALID = frozenset({400, 422})
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 408: "timeout_error", 429: "rate_limit_error"}
_TEI_TYPES = {408: "Backend", 429: "Overloaded", 500: "Backend", 503: "Unhealthy"}


@dataclass(frozen=True)
class Failure:
    """What went wrong.

    Attributes:
        status: The HTTP status on our own routes.
        code: A stable word.
        detail: A sentence; where a field is at fault it begins with its name and a colon.
        error_id: Under which the log has more.
    """

    status: int
    code: str
    detail: str
    error_id: str | None = None


def note_dialect(scope: Scope, body: Any) -> None:
    """Remembers whose client sent a body to a route that several dialects share."""
    if isinstance(body, dict) and get_route_path(scope) == _SEVERAL:
        scope[_NOTED] = rerank_dialect(body)


def rerank_dialect(body: Mapping[str, Any]) -> Dialect:
    """The dialect of a body of /rerank: that of the list it has; a null is no list, unless there is nothing else."""
    for names in ({name for name, value in body.items() if value is not None}, body.keys()):
        for dialect, lists in _LISTS.items():
            if not lists.isdisjoint(names):
                return dialect
    return "native"


def dialect_of(scope: Scope) -> Dialect:
    """The dialect in which a request is answered."""
    noted: Dialect | None = scope.get(_NOTED)
    return noted or dialect_of_path(get_route_path(scope))


def dialect_of_path(path: str) -> Dialect:
    """The dialect of a route whose body need not be looked at."""
    if path.startswith(("/v1/", "/v2/")) or path in _OPENAI_PATHS:
        return "openai"
    return "tei" if path in _TEI_PATHS else "native"


def status_for(dialect: Dialect, failure: Failure) -> int:
    """The HTTP status of a failure."""
    return 400 if failure.status == 422 and dialect != "native" else failure.status


def body_for(dialect: Dialect, failure: Failure) -> dict[str, Any]:
    """The body of a failure."""
    more = {} if failure.error_id is None else {"error_id": failure.error_id}
    beside = {"message": failure.detail, "detail": failure.detail}
    if dialect == "openai":
        return {"error": _openai(failure) | more, **beside}
    if dialect == "tei":
        kind = _TEI_TYPES.get(failure.status, "Validation")
        return {"error": failure.detail, "error_type": kind, **beside, "code": failure.code, **more}
    return {"detail": failure.detail, "code": failure.code, **more}


def _openai(failure: Failure) -> dict[str, Any]:
    kind = "server_error" if failure.status >= 500 else "invalid_request_error"
    return {
        "message": failure.detail,
        "type": _OPENAI_TYPES.get(failure.status, kind),
        "param": _param(failure),
        "code": failure.code,
    }


def _param(failure: Failure) -> str | None:
    """The field at fault: our messages begin with it."""
    if failure.code == "model_not_found":
        return "model"
    named = _FIELD.match(failure.detail)
    return named[0] if failure.status in _INVALID and named and named[1] != "body" else None
