"""The purpose of a text, in the words of several services, and the role that it maps to."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator

from serve_app.api.dialects.field_values import lower
from serve_app.domain.profiles import TextRole

InputType = Literal[
    "query", "search_query", "retrieval.query", "retrieval_query", "code.query", "question_answering",
    "passage", "document", "search_document", "retrieval.passage", "retrieval_document", "code.passage",
    "classification", "clustering", "separation", "text-matching", "semantic_similarity",
    "raw",
]  # fmt: skip
INPUT_TYPES: tuple[str, ...] = get_args(InputType)
_PASSAGES = frozenset(
    {"passage", "document", "search_document", "retrieval.passage", "retrieval_document", "code.passage"}
)


def role_of(input_type: InputType | None, default: TextRole | None = TextRole.PASSAGE) -> TextRole | None:
    """The role of an input type; None for ``raw``, which adds no prefix.

    Symmetric tasks and features use the query role, as E5's model card recommends.
    """
    if input_type is None:
        return default
    return None if input_type == "raw" else TextRole.of(is_query=input_type not in _PASSAGES)


InputTypeField = Annotated[InputType, BeforeValidator(lower, json_schema_input_type=InputType)]
