"""Validation of texts: lists of valid texts from request fields, and errors that name the invalid one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from serve_app.api.dialects.native.vectorize_schemas import TextRecord
from serve_app.domain.errors import InvalidInputError, ServiceError
from serve_app.domain.request_limits import Limits
from serve_app.domain.unicode import is_unicode

_HALF = "holds half of a surrogate pair, which is not Unicode text"


class Named(Protocol):
    """Values of a request with field names."""

    @property
    def name(self) -> Callable[[int], str]:
        """The field's name for an index, for error messages."""
        ...


@dataclass(frozen=True)
class Texts:
    """Texts of a request, none of them blank, broken or over a limit.

    Attributes:
        values: The texts, in order.
        ids: The client's ids, one for each text and all different; None if the texts came without.
        name: The field's name for an index, for error messages.
    """

    values: Sequence[str]
    ids: Sequence[str] | None
    name: Callable[[int], str]


def single_text(text: str, limits: Limits, *, field: str = "text", blank: bool = False) -> Texts:
    """Validates the one text of a field.

    Args:
        text: The text.
        limits: Limits of a request.
        field: Name of the field.
        blank: Accept a text of white space, as tolerant routes do.

    Raises:
        InvalidInputError: It is empty, blank, broken or over a limit.
    """
    return _validated(Texts([text], None, lambda _: field), limits, blank=blank)


def candidate_texts(
    query: str, candidates: Sequence[str], limits: Limits, *, field: str = "candidates", blank: bool = False
) -> Texts:
    """Validates a query and its candidates; the index -1 of the result names the query; arguments as ``single_text``.

    Raises:
        InvalidInputError: Too many, or a text that is blank, broken or over a limit.
    """
    single_text(query, limits, field="query", blank=blank)
    require_at_most(candidates, limits.max_candidates, field)
    return _validated(Texts(candidates, None, lambda i: f"{field}[{i}]" if i >= 0 else "query"), limits, blank=blank)


def pair_texts(query: str, candidate: str, limits: Limits) -> Texts:
    """Validates a query and its only candidate; as ``candidate_texts``, but the field is not a list."""
    single_text(query, limits, field="query")
    return _validated(Texts([candidate], None, lambda i: "candidate" if i >= 0 else "query"), limits)


def listed_texts(texts: str | Sequence[str], limits: Limits, *, field: str) -> Texts:
    """Validates the one text of a field of another service's client, or the texts of its list; blank ones are accepted.

    Raises:
        InvalidInputError: None or too many, or a text that is empty, broken or over a limit.
    """
    if isinstance(texts, str):
        return single_text(texts, limits, field=field, blank=True)
    if not texts:
        raise InvalidInputError(f"{field}: must not be empty")
    require_at_most(texts, limits.max_items, field)
    return _validated(Texts(texts, None, lambda i: f"{field}[{i}]"), limits, blank=True)


def compared_texts(source: str, sentences: Sequence[str], limits: Limits) -> Texts:
    """Validates a text and those that it is compared with; the text is the first of the result.

    Raises:
        InvalidInputError: None or too many, or a text that is empty, broken or over a limit.
    """
    field = "inputs.sentences"
    if not sentences:
        raise InvalidInputError(f"{field}: must not be empty")
    require_at_most(sentences, limits.max_items - 1, field)
    names = Texts([source, *sentences], None, lambda i: f"{field}[{i - 1}]" if i else "inputs.source_sentence")
    return _validated(names, limits, blank=True)


def require_at_most(texts: Sized, limit: int, field: str) -> None:
    """Raises ``InvalidInputError`` if a field has more texts than a request may have."""
    if len(texts) > limit:
        raise InvalidInputError(f"{field}: {len(texts)} texts, the limit is {limit}; send several requests")


def batch_texts(items: list[str] | dict[str, str] | list[TextRecord], limits: Limits) -> Texts:
    """Validates the texts of a list, an object or a list of records.

    Raises:
        InvalidInputError: Too many, a duplicate or broken id, or a text that is blank, broken or over a limit.
    """
    require_at_most(items, limits.max_items, "items")
    if isinstance(items, dict):
        names = list(items)
        _check_ids(names, lambda i: f"items: the id {names[i]!r}")
        return _validated(Texts(list(items.values()), names, lambda i: f"items[{names[i]!r}]"), limits)
    records = [item for item in items if isinstance(item, TextRecord)]
    if not records:
        return _validated(Texts([str(item) for item in items], None, lambda i: f"items[{i}]"), limits)
    ids = [record.id for record in records]
    _check_ids(ids, lambda i: f"items[{i}].id")
    _require_distinct(ids)
    return _validated(Texts([record.text for record in records], ids, lambda i: f"items[{i}].text"), limits)


@contextmanager
def field_errors(texts: Named) -> Iterator[None]:
    """Prefixes the message of an error that one text caused with the name of its field."""
    try:
        yield
    except ServiceError as error:
        if error.item is not None:
            error.message = f"{texts.name(error.item)}: {error.message}"
        raise


def _validated(texts: Texts, limits: Limits, *, blank: bool = False) -> Texts:
    for i, text in enumerate(texts.values):
        if not text or (not blank and text.isspace()):
            raise InvalidInputError(f"{texts.name(i)}: must not be empty" + ("" if blank else " or blank"))
        if len(text) > limits.max_text_chars:
            raise InvalidInputError(
                f"{texts.name(i)}: {len(text)} characters, the limit is {limits.max_text_chars}; split the text"
            )
        if not is_unicode(text):
            raise InvalidInputError(f"{texts.name(i)}: {_HALF}")
    return texts


def _check_ids(ids: Sequence[str], name: Callable[[int], str]) -> None:
    for i, text in enumerate(ids):
        if not is_unicode(text):
            raise InvalidInputError(f"{name(i)}: {_HALF}")


def _require_distinct(ids: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for i, name in enumerate(ids):
        if name in seen:
            raise InvalidInputError(f"items[{i}].id: {name!r} is also the id of items[{seen[name]}]")
        seen[name] = i
