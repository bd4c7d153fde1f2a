"""JSON schemas in words: the type of a value as a short phrase for a table cell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

_NAMES = {"string": "string", "integer": "integer", "number": "number", "boolean": "boolean", "null": "null"}
_BEYOND = 2**31  # a bound of the format rather than of the value
_FLAGS = ('"true"', '"false"')  # as some clients write a boolean
_BOUNDS = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))


def resolve(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """The schema behind a reference; the schema itself if it is none."""
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[-1]]
    return schema


def type_of(schema: Schema, definitions: Mapping[str, Schema]) -> str:
    """The type in words, such as ``integer ≥ 1 or "auto"``; null is left out, since it means absent."""
    phrases = list(dict.fromkeys(_phrases(schema, definitions)))
    if "boolean" in phrases:
        phrases = [phrase for phrase in phrases if phrase not in _FLAGS]
    return " or ".join(phrases) or "any"


def _phrases(schema: Schema, definitions: Mapping[str, Schema]) -> list[str]:
    schema = resolve(schema, definitions)
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            return [phrase for part in schema[union] for phrase in _phrases(part, definitions)]
    if "const" in schema:
        return [_literal(schema["const"])]
    if "enum" in schema:
        return [_literal(value) for value in _without_spellings(schema["enum"])]
    kind = schema.get("type")
    if kind == "null":
        return []
    if kind == "array":
        return [f"list of {_plural(type_of(schema.get('items', {}), definitions))}"]
    if kind == "object":
        return ["object"]
    if kind in _NAMES:
        bounds = [
            f"{sign} {_number(schema[name])}" for name, sign in _BOUNDS if name in schema and abs(schema[name]) < 2**31
        ]
        return [" ".join([_NAMES[kind], ", ".join(bounds)]).strip()]
    return ["any"]


def _number(value: float) -> str:
    return f"{int(value) if value == int(value) else value:,}"


def _plural(words: str) -> str:
    if words in _NAMES or words == "object":
        return f"{words}s"
    return f"({words})" if " or " in words else words


def _literal(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else json.dumps(value)


def _without_spellings(values: list[Any]) -> list[Any]:
    """The words in lower case where a list has them in capitals, too."""
    lower = {value for value in values if isinstance(value, str) and value == value.lower()}
    return [value for value in values if not isinstance(value, str) or value in lower or value.lower() not in lower]


def default_of(schema: Schema) -> str:
    """The default as JSON; empty if it has none or if that is null."""
    value = schema.get("default")
    return "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def cell(text: str) -> str:
    """A text as one cell of a Markdown table."""
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
