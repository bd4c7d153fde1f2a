"""Reasons why a line or an example is not a training pair, with what to send instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serve_app.domain.unicode import fold

NOT_ONE_TAB = "not exactly one tab between query and passage"
HEADER = "a header line, not a pair"
EMPTY_SIDE = "query or passage is empty or blank"
TOO_LONG = "longer than the limit"
BROKEN_TEXT = "holds half of a surrogate pair, which is not Unicode text"
NUL = "holds a NUL character, as UTF-16 text has that is read as UTF-8"
NO_POSITIVE = "no passage that answers the query"
CONTRADICTION = "a passage is both an answer and a negative"

_FIELDS = ("query", "pos", "neg")
_ALIASES = {
    "query": "queries question questions q anchor sentence1 query_text search_query",
    "pos": "positive positives passage passages answer answers document documents doc docs context text response "
           "sentence2 positive_passages positive_ctxs",
    "neg": "negs negative negatives hard_negative hard_negatives negative_passages negative_ctxs hard_negative_ctxs",
}  # fmt: skip
_RIGHT = {alias: name for name, aliases in _ALIASES.items() for alias in aliases.split()}
_OF_QUERIES, _OF_PASSAGES = (
    frozenset({name, *_ALIASES[name].split()}) for name in ("query", "pos")
)  # what the first line of a table calls its columns
_SHOWN_CHARS = 40


def not_a_pair(line: str, sides: Sequence[str]) -> str:
    """The reason for a line that does not have two columns, with a guess at what it is."""
    if len(sides) > 2:
        columns = f"{NOT_ONE_TAB}; it has {len(sides)} columns"
        return f"{columns}; negatives are sent as JSON, as `examples` or JSON lines with query, pos and neg"
    if line.lstrip().startswith(("{", "[")):
        return f"{NOT_ONE_TAB}; JSON is sent as the list `examples`, or as a file with one object a line"
    if "\\t" in line:
        return f"{NOT_ONE_TAB}; it has a backslash and a t instead of a tab"
    if "\r" in line:
        return f"{NOT_ONE_TAB}; a carriage return alone ends no line"
    return NOT_ONE_TAB


def is_header(sides: Sequence[str]) -> bool:
    """True if the two columns of a first line are names of columns."""
    query, passage = (fold(side.strip('"')).replace(" ", "_") for side in sides)
    return query in _OF_QUERIES and passage in _OF_PASSAGES


def wrong_field(given: Mapping[str, Any]) -> str | None:
    """The reason for an object with an unknown field, with the right name where the field is a known alias."""
    for name in given:
        if name in _FIELDS:
            continue
        right = _RIGHT.get(fold(name))
        called = f"; it is called {right!r} here" if right and right not in given else ""
        return f"has a field {name[:_SHOWN_CHARS]!r}{called}; an example has query, pos and, perhaps, neg"
    return None
