"""Error bodies of the native routes: ``{"detail", "code"}``."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from serve_app.api.dialects.dialect import Failure
from serve_app.api.dialects.documented_errors import NATIVE_STATUSES, documented


class ErrorBody(BaseModel):
    """The body of an error."""

    detail: str
    code: str
    error_id: str | None = None


ERRORS = documented(ErrorBody, NATIVE_STATUSES)


def native_error_body(failure: Failure) -> dict[str, Any]:
    """The body of an error."""
    more = {} if failure.error_id is None else {"error_id": failure.error_id}
    return {"detail": failure.detail, "code": failure.code, **more}
