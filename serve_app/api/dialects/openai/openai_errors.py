"""Error bodies of OpenAI's clients, with the fields that Cohere's and Jina's clients read beside them.

All of these clients share paths below /v1 and /v2, so an unknown path there cannot know its client.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, Field

from serve_app.api.dialects.dialect import Failure
from serve_app.api.dialects.documented_errors import FOREIGN_STATUSES, documented

_FIELD = re.compile(r"([a-z][a-z0-9_]*)(\[[^\]]*\]|\.\w+)*(?=: )")
_INVALID = frozenset({400, 422})
_TYPES = {401: "authentication_error", 403: "permission_error", 408: "timeout_error", 429: "rate_limit_error"}


class OpenAIError(BaseModel):
    """The error object."""

    message: str
    type: str = Field(description="Class of the error, such as invalid_request_error or rate_limit_error.")
    param: str | None = Field(description="The invalid field.")
    code: str
    error_id: str | None = None


class OpenAIErrorBody(BaseModel):
    """The body of an error on the routes of OpenAI's, Cohere's, Jina's and vLLM's clients."""

    error: OpenAIError
    message: str = Field(description="The same sentence, for Cohere's clients.")
    detail: str = Field(description="The same sentence, for Jina's clients.")


OPENAI_ERRORS = documented(OpenAIErrorBody, FOREIGN_STATUSES)


def openai_error_body(failure: Failure) -> dict[str, Any]:
    """The body of an error."""
    default = "server_error" if failure.status >= 500 else "invalid_request_error"
    more = {} if failure.error_id is None else {"error_id": failure.error_id}
    error = {
        "message": failure.detail,
        "type": _TYPES.get(failure.status, default),
        "param": _param(failure),
        "code": failure.code,
    }
    return {"error": error | more, "message": failure.detail, "detail": failure.detail}


def _param(failure: Failure) -> str | None:
    """The invalid field: messages begin with it."""
    if failure.code == "model_not_found":
        return "model"
    named = _FIELD.match(failure.detail)
    return named[0] if failure.status in _INVALID and named and named[1] != "body" else None
