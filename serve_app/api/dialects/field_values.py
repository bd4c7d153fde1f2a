"""Values that several services spell differently: booleans, truncation, limits, model names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema


def lower(value: Any) -> Any:
    """A string in lower case; anything else unchanged."""
    return value.lower() if isinstance(value, str) else value


def _any_case(words: tuple[str, ...]) -> dict[str, Any]:
    """The JSON schema of words in lower case, upper case or title case."""
    return {"type": "string", "enum": sorted({form for word in words for form in (word, word.upper(), word.title())})}


_FLAGS = {"true": True, "false": False}


def _flag(value: Any) -> Any:
    return _FLAGS.get(value.lower(), value) if isinstance(value, str) else value


Flag = Annotated[
    bool,
    BeforeValidator(
        _flag,
        json_schema_input_type=Annotated[
            Any, WithJsonSchema({"anyOf": [{"type": "boolean"}, _any_case(("true", "false"))]})
        ],
    ),
]

TruncateWord = Literal["NONE", "START", "END"]


def _truncate(value: Any) -> Any:
    flag = _flag(value)
    if isinstance(flag, bool):
        return "END" if flag else "NONE"
    return value.upper() if isinstance(value, str) else value


Truncate = Annotated[
    TruncateWord,
    BeforeValidator(
        _truncate,
        json_schema_input_type=Annotated[
            Any, WithJsonSchema({"anyOf": [{"type": "boolean"}, _any_case(("none", "start", "end", "true", "false"))]})
        ],
    ),
]

Side = Annotated[
    Literal["left", "right"],
    BeforeValidator(lower, json_schema_input_type=Annotated[Any, WithJsonSchema(_any_case(("left", "right")))]),
]


def _no_limit(value: Any) -> Any:
    return None if type(value) is int and value == -1 else value


MaxTokens = Annotated[
    int | None,
    Field(ge=1),
    BeforeValidator(
        _no_limit,
        json_schema_input_type=Annotated[
            Any, WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": -1}, {"type": "null"}]})
        ],
    ),
]


def _all_dimensions(value: Any) -> Any:
    return None if type(value) is int and value == 0 else value


Dimensions = Annotated[
    int | None,
    Field(ge=1),
    BeforeValidator(
        _all_dimensions,
        json_schema_input_type=Annotated[
            Any, WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]})
        ],
    ),
]

_UNNAMED_MODELS = frozenset({"default/not-specified"})  # of infinity's clients


def _named_model(value: Any) -> Any:
    return None if isinstance(value, str) and value in _UNNAMED_MODELS else value


ModelField = Annotated[str | None, BeforeValidator(_named_model)]
