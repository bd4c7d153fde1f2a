"""Texts, and objects that hold one, with their JSON schemas."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from serve_app.domain.request_limits import MOST_TEXTS

_TEXT_KEYS = ("text", "content", "page_content")
TEXT_SCHEMA: dict[str, Any] = {"type": "string", "minLength": 1}
OBJECT_SCHEMA: dict[str, Any] = {"type": "object", "properties": {"text": TEXT_SCHEMA}, "required": ["text"]}
_TEXTS_SCHEMA: dict[str, Any] = {
    "type": "array", "items": {"anyOf": [TEXT_SCHEMA, OBJECT_SCHEMA]}, "minItems": 1, "maxItems": MOST_TEXTS,
}  # fmt: skip
_ID_SCHEMA: dict[str, Any] = {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31}
IDS_SCHEMA: dict[str, Any] = {"type": "array", "items": _ID_SCHEMA, "minItems": 1}
LISTS_SCHEMA: dict[str, Any] = {"type": "array", "items": IDS_SCHEMA, "minItems": 1, "maxItems": MOST_TEXTS}
TEXT_INPUTS_SCHEMA: dict[str, Any] = {"anyOf": [TEXT_SCHEMA, OBJECT_SCHEMA, _TEXTS_SCHEMA]}
INPUTS_SCHEMA: dict[str, Any] = {"anyOf": [*TEXT_INPUTS_SCHEMA["anyOf"], IDS_SCHEMA, LISTS_SCHEMA]}


def text_of(value: Any) -> Any:
    """The text of an object that holds one, as ``{"text"}`` or as parts ``{"content": [{"type": "text", "text"}]}``.

    Anything else is returned unchanged, for pydantic to report.
    """
    if not isinstance(value, dict):
        return value
    for key in _TEXT_KEYS:
        found = value.get(key)
        if isinstance(found, str):
            return found
        if isinstance(found, list) and found and all(_is_text_part(part) for part in found):
            return "\n".join(part["text"] for part in found)
    return value


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)


def texts_of(value: Any) -> Any:
    """``text_of`` each element of a list; a list of token ids, which may be millions, is returned unread."""
    if not isinstance(value, list):
        return text_of(value)
    if not 0 < len(value) <= MOST_TEXTS or not isinstance(value[0], str | dict):
        return value
    return [text_of(item) for item in value]


ForeignText = Annotated[str, Field(json_schema_extra={"minLength": 1}, description="Not empty.")]
TextOrObject = Annotated[
    str,
    BeforeValidator(
        text_of, json_schema_input_type=Annotated[Any, WithJsonSchema({"anyOf": [TEXT_SCHEMA, OBJECT_SCHEMA]})]
    ),
]
