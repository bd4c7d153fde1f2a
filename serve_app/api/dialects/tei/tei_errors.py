"""Error bodies of text-embeddings-inference: ``{"error", "error_type"}``, with the native fields beside them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from serve_app.api.dialects.dialect import Failure
from serve_app.api.dialects.documented_errors import FOREIGN_STATUSES, documented

_TYPES = {408: "Backend", 429: "Overloaded", 500: "Backend", 503: "Unhealthy"}


class TEIErrorBody(BaseModel):
    """The body of an error on the routes of text-embeddings-inference."""

    error: str
    error_type: str = Field(description="Validation, Overloaded, Unhealthy or Backend.")
    message: str = Field(description="The same sentence.")
    detail: str = Field(description="The same sentence.")
    code: str
    error_id: str | None = None


TEI_ERRORS = documented(TEIErrorBody, FOREIGN_STATUSES)


def tei_error_body(failure: Failure) -> dict[str, Any]:
    """The body of an error."""
    more = {} if failure.error_id is None else {"error_id": failure.error_id}
    return {
        "error": failure.detail,
        "error_type": _TYPES.get(failure.status, "Validation"),
        "message": failure.detail,
        "detail": failure.detail,
        "code": failure.code,
        **more,
    }
