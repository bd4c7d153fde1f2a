"""Descriptions of error responses for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Responses = dict[int | str, dict[str, Any]]  # FastAPI's `responses`

NATIVE_STATUSES: Mapping[int, str] = {
    400: "The model lacks this representation; the message names the served models that have it.",
    404: "No served model has this name.",
    408: "The deadline passed; the work was dropped.",
    413: "The body is larger than the limit.",
    422: "The body breaks the schema or a limit; the message names the field and the index.",
    429: "The queue or the memory for bodies is full, or the key's limit is used up; see `Retry-After`.",
    500: "An unexpected failure, logged under `error_id`; or the numbers of a text are not finite.",
    503: "No replica is ready; see `Retry-After`.",
}
"""Errors of native routes that compute."""

_INVALID = (
    "The body breaks the schema or a limit, or a field cannot be honoured; the message names the field and the index. "
    "Or the model lacks this representation."
)
SHARED_STATUSES: Mapping[int, str] = {**NATIVE_STATUSES, 400: _INVALID}
"""Errors of a route that native and other clients share."""
FOREIGN_STATUSES: Mapping[int, str] = {status: text for status, text in SHARED_STATUSES.items() if status != 422}
"""Errors of other clients' routes that compute."""


def documented(body: Any, statuses: Mapping[int, str]) -> Responses:
    """FastAPI's ``responses`` for errors with a body of this schema."""
    return {status: {"model": body, "description": text} for status, text in statuses.items()}
