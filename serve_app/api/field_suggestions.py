"""Suggestions of a known field for an unknown one on a strict route."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, get_args

from fastapi import Request
from pydantic import BaseModel

_UNKNOWN = "extra_forbidden"
_LONGEST = 64  # of a name that is compared
_DEEPEST = 4  # of nested models


def with_hint(request: Request, violation: dict[str, Any]) -> dict[str, Any]:
    """Adds the most similar field to the message of a violation by an unknown one."""
    name = violation["loc"][-1] if violation["loc"] else None
    if violation["type"] != _UNKNOWN or not isinstance(name, str) or len(name) > _LONGEST:
        return violation
    depth = sum(isinstance(part, str) and not part.startswith("<") for part in violation["loc"]) - 2
    body = getattr(request.scope.get("route"), "body_field", None)
    near = difflib.get_close_matches(name, _known(body, min(max(depth, 0), _DEEPEST)), n=1) if body else []
    return {**violation, "msg": f"{violation['msg']}; did you mean {near[0]!r}?"} if near else violation


@lru_cache(maxsize=256)
def _known(body: Any, depth: int) -> list[str]:
    """The fields of the models of a route's body, so many levels below it."""
    models = list(_models(body.field_info.annotation))
    for _ in range(depth):
        fields = [info for model in models for info in model.model_fields.values()]
        models = [nested for info in fields for nested in _models(info.annotation)]
    return sorted({name for model in models for name in model.model_fields})


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
