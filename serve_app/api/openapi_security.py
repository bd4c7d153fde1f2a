"""API keys in the OpenAPI document: the security schemes, and the errors without a valid key."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from serve_app.api.middleware.api_key_auth import scope_for
from serve_app.security.api_keys import Scope

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_EITHER: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]


def describe(app: FastAPI) -> None:
    """Adds the key and the scope that each operation needs to the application's document."""
    plain = app.openapi

    def with_keys() -> dict[str, Any]:
        document = plain()  # FastAPI caches it; the addition is idempotent
        document.setdefault("components", {})["securitySchemes"] = _SCHEMES
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if (needed := scope_for(method.upper(), path)) is not None:
                    _describe(operation, needed)
        return document

    app.openapi = with_keys  # type: ignore[method-assign]  # FastAPI's own way to extend the document


def _describe(operation: dict[str, Any], needed: Scope) -> None:
    operation["security"] = _EITHER
    responses = operation["responses"]
    responses["401"] = {"description": "No valid API key."}
    if needed is Scope.ADMIN:
        responses["403"] = {"description": f"The API key lacks the scope `{needed}`."}
    responses.setdefault("429", {"description": "The API key is over its limits; see `Retry-After`."})
