"""The shapes of an error's body: which one a client can read depends on the path it called.

====================================  ==============================================================
below ``/v1`` and ``/v2``             OpenAI's: ``{"error": {"message", "type", "param", "code"}}``
routes of text-embeddings-inference   its own: ``{"error", "error_type"}``
everything else                       ``{"detail", "code"}``
====================================  ==============================================================

What is said is the same in all: a sentence that names the field, a word for its kind, and ``error_id`` where the log
has more. ``/rerank`` is ours, whichever client's form came.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_TEI_PATHS = frozenset({"/", "/embed", "/embed_sparse", "/similarity", "/tokenize", "/info"})
_FIELD = re.compile(r"([a-z][a-z0-9_]*)(\[[^\]]*\]|\.\w+)*(?=: )")
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 408: "timeout_error", 429: "rate_limit_error"}
_TEI_TYPES = {408: "Backend", 429: "Overloaded", 500: "Backend", 503: "Unhealthy"}


@dataclass(frozen=True)
class Failure:
    """What went wrong.

    Attributes:
        status: The HTTP status.
        code: A stable word.
        detail: A sentence; where a field is at fault it begins with its name and a colon.
        error_id: Under which the log has more.
    """

    status: int
    code: str
    detail: str
    error_id: str | None = None


def body_for(path: str, failure: Failure) -> dict[str, Any]:
    """The body of an error for whoever called a path."""
    more = {} if failure.error_id is None else {"error_id": failure.error_id}
    if path.startswith(("/v1/", "/v2/")):
        return {"error": _openai(failure) | more}
    if path in _TEI_PATHS:
        return {"error": failure.detail, "error_type": _TEI_TYPES.get(failure.status, "Validation"), **more}
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
    return named[0] if failure.status == 422 and named and named[1] != "body" else None
