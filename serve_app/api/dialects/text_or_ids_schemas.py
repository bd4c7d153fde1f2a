"""Schemas of ``input`` and ``inputs``: one text or several, as text or as token ids."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, SkipValidation, WithJsonSchema

from serve_app.api.dialects.text_objects import INPUTS_SCHEMA, TEXT_INPUTS_SCHEMA, ForeignText, texts_of
from serve_app.api.union_tags import union_tag
from serve_app.domain.request_limits import MOST_TEXTS

TokenId = SkipValidation[Annotated[int, Field(ge=0, lt=2**31)]]  # may be millions; validated in ``text_or_ids``

_ANY = "Input should be a string, a list of strings, a list of token ids or a list of lists of token ids"


def _form(inputs: Any) -> str | None:
    if isinstance(inputs, str):
        return "<text>"
    if not isinstance(inputs, list):
        return None
    first = inputs[0] if inputs else ""
    return {int: "<ids>", list: "<lists>"}.get(type(first), "<texts>")


def _ids_form(ids: Any) -> str | None:
    form = "<ids>" if ids == [] else _form(ids)
    return form if form in {"<ids>", "<lists>"} else None


Ids = Annotated[
    Annotated[list[TokenId], Field(json_schema_extra={"minItems": 1}), union_tag("<ids>")]
    | Annotated[
        list[Annotated[list[TokenId], Field(json_schema_extra={"minItems": 1})]],
        Field(max_length=MOST_TEXTS, json_schema_extra={"minItems": 1}),
        union_tag("<lists>"),
    ],
    Discriminator(
        _ids_form,
        custom_error_type="input_type",
        custom_error_message="Input should be a list of token ids or a list of lists of token ids",
    ),
]

Inputs = Annotated[
    Annotated[ForeignText, union_tag("<text>")]
    | Annotated[list[ForeignText], Field(max_length=MOST_TEXTS), union_tag("<texts>")]
    | Annotated[list[TokenId], union_tag("<ids>")]
    | Annotated[list[list[TokenId]], Field(max_length=MOST_TEXTS), union_tag("<lists>")],
    Discriminator(_form, custom_error_type="input_type", custom_error_message=_ANY),
    BeforeValidator(texts_of, json_schema_input_type=Annotated[Any, WithJsonSchema(INPUTS_SCHEMA)]),
]


def _text_form(inputs: Any) -> str | None:
    return "<text>" if isinstance(inputs, str) else "<texts>" if isinstance(inputs, list) else None


TextInputs = Annotated[
    Annotated[ForeignText, union_tag("<text>")]
    | Annotated[list[ForeignText], Field(max_length=MOST_TEXTS), union_tag("<texts>")],
    Discriminator(
        _text_form, custom_error_type="input_type", custom_error_message="Input should be a string or a list of strings"
    ),
    BeforeValidator(texts_of, json_schema_input_type=Annotated[Any, WithJsonSchema(TEXT_INPUTS_SCHEMA)]),
]
