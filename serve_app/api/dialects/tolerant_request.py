"""Base of tolerant requests, those of other services' clients: unknown fields are ignored and named.

Those services ignore unknown fields, and their clients depend on it. Every schema has this base, with four rules:

- null means absent;
- a field may have several names (``names``);
- a field that would change the result and cannot be honoured (``unsupported``) is refused with its name, unless its
  value changes nothing;
- any other unknown field is ignored and named in the reply header ``X-Ignored-Fields``.

Native routes are strict: ``strict_request.StrictRequest``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Annotated, Any, ClassVar

from fastapi import Request
from fastapi.responses import Response
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema

from serve_app.api.strict_json import StrictRoute
from serve_app.domain.errors import InvalidInputError

HEADER = "X-Ignored-Fields"
NOTHING: tuple[Any, ...] = (False, "", [], {}, "false", "False")
"""Values with which an unsupported field changes nothing."""

_MOST_NAMED = 20
_LONGEST_NAME = 64
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")

_ignored: ContextVar[list[str] | None] = ContextVar("ignored_fields", default=None)


def names(name: str, *others: str) -> AliasChoices:
    """The names of a field, the documented one first; for ``Field(validation_alias=...)``."""
    return AliasChoices(name, *others)


class TolerantRequest(BaseModel):
    """Base of all requests of other services' clients.

    Attributes:
        unsupported: Fields that would change the result and cannot be honoured, with the values that change nothing.
    """

    model_config = ConfigDict(strict=True, extra="ignore")

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _tolerate(cls, body: Any) -> Any:
        """Removes null and unknown fields.

        Raises:
            InvalidInputError: A field cannot be honoured, or two names of one field contradict each other.
        """
        if not isinstance(body, dict):
            return body
        body = _with_extra_body(body)
        canonical = {choice: name for name, info in cls.model_fields.items() for choice in [name, *_choices(info)]}
        kept: dict[str, Any] = {}
        sent_as: dict[str, str] = {}
        for name, value in body.items():
            if value is None:
                continue
            if name not in canonical:
                cls._note_unknown(name, value)
                continue
            other = sent_as.setdefault(canonical[name], name)
            if other != name and not cls._agree(canonical[name], value, body[other]):
                raise InvalidInputError(f"{name}: {other} means the same and has another value; send one of them")
            kept[other] = value
        return kept

    @classmethod
    def _agree(cls, field: str, one: Any, other: Any) -> bool:
        """True if two values of a field mean the same."""
        if one == other:
            return True
        adapter = _adapter(cls, field)
        try:
            read = [cls.meaning(field, adapter.validate_python(value)) for value in (one, other)]
        except ValidationError:
            return False
        return bool(read[0] == read[1])

    @classmethod
    def meaning(cls, field: str, value: Any) -> Any:
        """The meaning of a validated value: equal for values with the same result."""
        return value

    @classmethod
    def _note_unknown(cls, name: str, value: Any) -> None:
        harmless = cls.unsupported.get(name)
        if harmless is None:
            if (ignored := _ignored.get()) is not None:
                ignored.append(name)
        elif value not in harmless:
            raise InvalidInputError(f"{name}: cannot be honoured here and would change the result; leave it out")

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describes optional fields under all of their names, and that each of them may be null."""
        reference = handler(schema)
        described = handler.resolve_ref_schema(reference)
        properties = described.get("properties", {})
        for name, info in cls.model_fields.items():
            first, *others = _choices(info) or [name]
            if info.is_required() or first not in properties:
                continue
            properties[first] = _nullable(properties[first])
            for other in others:
                properties[other] = {**properties[first], "description": f"As `{first}`."}
        return reference


def _with_extra_body(body: dict[str, Any]) -> dict[str, Any]:
    """The body with the fields of ``extra_body`` in it: LiteLLM nests them, the OpenAI SDK merges them itself."""
    extra = body.get("extra_body")
    if not isinstance(extra, dict):
        return body
    return {name: value for name, value in body.items() if name != "extra_body"} | extra


@lru_cache(maxsize=256)
def _adapter(model: type[TolerantRequest], field: str) -> TypeAdapter[Any]:
    """Reads a value as a field of a request does."""
    info = model.model_fields[field]
    described: Any = Annotated[(info.annotation, Field(), *info.metadata)]
    return TypeAdapter(described, config=ConfigDict(strict=True))


_NOT_OF_A_TYPE = ("default", "description", "title")


def _nullable(described: dict[str, Any]) -> dict[str, Any]:
    if {"type": "null"} in described.get("anyOf", []):
        return described
    value = {key: part for key, part in described.items() if key not in _NOT_OF_A_TYPE}
    meta = {key: part for key, part in described.items() if key in _NOT_OF_A_TYPE}
    return {"anyOf": [*(value["anyOf"] if list(value) == ["anyOf"] else [value]), {"type": "null"}], **meta}


def _choices(info: FieldInfo) -> list[str]:
    alias = info.validation_alias
    return [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else []


class TolerantRoute(StrictRoute):
    """A route that names in its reply the fields that it ignored; for ``APIRouter(route_class=TolerantRoute)``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, and the header."""
        handle = super().get_route_handler()

        async def tolerantly(request: Request) -> Response:
            _assume_json(request)
            ignored: list[str] = []
            token = _ignored.set(ignored)
            try:
                response = await handle(request)
            finally:
                _ignored.reset(token)
            if ignored:
                response.headers[HEADER] = _header_value(ignored)
            return response

        return tolerantly


def _assume_json(request: Request) -> None:
    """A body without a ``Content-Type`` is JSON: LiteLLM sends none to Voyage."""
    if not any(name == b"content-type" for name, _ in request.scope["headers"]):
        request.scope["headers"] = [*request.scope["headers"], (b"content-type", b"application/json")]


def _header_value(ignored: list[str]) -> str:
    shown = [_UNSAFE.sub("?", name)[:_LONGEST_NAME] for name in ignored[:_MOST_NAMED]]
    return ",".join(shown + ["..."] * (len(ignored) > _MOST_NAMED))
