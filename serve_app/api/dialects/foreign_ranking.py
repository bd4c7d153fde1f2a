"""What ranking requests of other services' clients mean: texts of their documents, options, what a score is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from serve_app.api.dialects.foreign_fields import text_of
from serve_app.api.dialects.native.rerank_schemas import RankingOptions
from serve_app.api.request_options import tolerant_options
from serve_app.api.service_results import CallOptions
from serve_app.domain.errors import InvalidInputError
from serve_app.domain.request_limits import Limits

BATCH_SIZE = 12  # candidates in one forward, where the client has no say


def ranking_options(
    request: RankingOptions, header: str | None, limits: Limits, *, truncate: bool = True
) -> CallOptions:
    """The options of a ranking request; see ``tolerant_options``."""
    options = tolerant_options(request, header, limits, truncate=truncate)
    if request.max_query_tokens is not None and request.truncate is None:
        options = replace(options, truncate=True)
    return replace(options, max_query_tokens=request.max_query_tokens)


def wants_normalized(request: RankingOptions) -> bool:
    """Whether scores are wanted as means or probabilities, not as sums or logits."""
    return request.normalize and not request.raw_scores


def document_texts(documents: Sequence[str | dict[str, Any]], rank_fields: Sequence[str] | None) -> list[str]:
    """What is read of each document.

    Args:
        documents: Texts, or objects with a text.
        rank_fields: Fields of objects that are read in place of their text, a line each.

    Raises:
        InvalidInputError: An object has no text, or none of the fields.
    """
    return [
        document if isinstance(document, str) else _text_of_object(document, rank_fields, i)
        for i, document in enumerate(documents)
    ]


def _text_of_object(document: dict[str, Any], rank_fields: Sequence[str] | None, index: int) -> str:
    if rank_fields is None:
        text = text_of(document)
        if isinstance(text, str):
            return text
        raise InvalidInputError(
            f"documents[{index}]: an object needs a text, content or page_content that is a string, or rank_fields"
        )
    values = [document[name] for name in rank_fields if document.get(name) is not None]
    if not values:
        raise InvalidInputError(f"documents[{index}]: has none of the rank_fields")
    if not all(isinstance(value, str | int | float) for value in values):
        raise InvalidInputError(f"documents[{index}]: a field of rank_fields is neither a string nor a number")
    return "\n".join(map(str, values))
