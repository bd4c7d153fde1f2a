"""Corrections of FastAPI's OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from serve_app.api.dialects.dialect_registry import dialect_of_path

_INVALID = "422"


def describe(app: FastAPI) -> None:
    """Removes the status 422 from the routes of other services' clients, which answer 400 instead."""
    plain = app.openapi

    def corrected() -> dict[str, Any]:
        document = plain()  # FastAPI caches it; the correction is idempotent
        for path, operations in document["paths"].items():
            if dialect_of_path(path).invalid_status == 400:
                for operation in operations.values():
                    operation["responses"].pop(_INVALID, None)
        return document

    app.openapi = corrected  # type: ignore[method-assign]  # FastAPI's own way to change the document
