"""Schemas of /vectorize and /vectorize-batch. Names, defaults and shapes are a contract and may not change.

Pydantic checks the types; what depends on settings or needs a message of its own (blank texts, limits)
is checked in ``serve_app.api.validated_texts``.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field

from serve_app.api.dialects.strict_request import EncodingOptions, StrictRequest, Text
from serve_app.api.encoding.quantize import Encoding
from serve_app.api.union_tags import union_tag
from serve_app.domain.request_limits import MOST_TEXTS


class DenseOptions(EncodingOptions):
    """Options of a request for dense vectors."""

    encoding: Encoding = Field(
        "float",
        description="Encoding of the numbers. int8: round(127 x). binary: a bit for each number, 1 where it is above "
        "0, eight a byte, as numpy.packbits does.",
    )


class VectorizeRequest(DenseOptions):
    """One text."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "how do I rotate a log file?"}]})

    text: Text
    is_query: bool = Field(True, description="Embed it as a search query (true) or as a passage (false).")


class VectorizeReply(BaseModel):
    """The text's vector, L2-normalised."""

    vector: list[float]


class TextRecord(StrictRequest):
    """A text with an id of the client."""

    id: str
    text: Text


def _form(items: Any) -> str | None:
    if isinstance(items, dict):
        return "<map>"
    if isinstance(items, list):
        return "<records>" if items and isinstance(items[0], dict | TextRecord) else "<strings>"
    return None


Items = Annotated[
    Annotated[list[Text], Field(max_length=MOST_TEXTS), union_tag("<strings>")]
    | Annotated[dict[str, Text], Field(max_length=MOST_TEXTS), union_tag("<map>")]
    | Annotated[
        list[TextRecord],
        # the first wrong record ends it, because each may be wrong in thousands of names
        Field(max_length=MOST_TEXTS, fail_fast=True, json_schema_extra={"minItems": 1}),
        union_tag("<records>"),
    ],
    Discriminator(
        _form,
        custom_error_type="items_type",
        custom_error_message="Input should be a list of strings, an object {id: text} or a list of {id, text}",
    ),
]


class VectorizeBatchRequest(DenseOptions):
    """Many texts, in one of three forms."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": ["logrotate rotates log files.", "cron runs jobs."]}]}
    )

    items: Items = Field(description="A list of strings, an object {id: text}, or a list of {id, text}.")
    is_query: bool = Field(False, description="Embed them as search queries (true) or as passages (false).")


class VectorizeBatchReply(BaseModel):
    """Vectors in the order of the texts, or by id if the texts came with ids."""

    vectors: list[list[float]] | dict[str, list[float]]
