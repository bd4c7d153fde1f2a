r"""Training examples from a file: JSON lines ``{"query": str, "pos": [str], "neg": [str]}``, or ``query<TAB>passage``.

The first line decides which of the two it is; the file's name does not count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from serve_app.jobs.pair_faults import wrong_field
from serve_app.jobs.training_pairs import Example, Pairs, example_of, gather, parse_lines

BLANK = "the line is blank"
NO_OBJECT = "not a JSON object"
NAMED_TWICE = "names a field twice"

_REQUIRED = ("query", "pos")


class _NamedTwiceError(ValueError):
    """JSON allows it, and Python would keep the last without a word."""


def parse_file(text: str, *, max_text_chars: int) -> Pairs:
    r"""Reads a file of either form; a line that is not an example is left out and reported with its line's number.

    Args:
        text: Lines that end with ``\n`` or ``\r\n``; the end of the last one may be missing.
        max_text_chars: An example with a longer text is left out.
    """
    text = text.removeprefix("\ufeff")
    if not _is_json(text):
        return parse_lines(text, max_text_chars=max_text_chars)
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return gather(map(_read, lines), max_text_chars=max_text_chars)


def _is_json(text: str) -> bool:
    """True if the first line that is not blank is meant as an object, valid or not; a query may begin like one."""
    line = text.lstrip(" \r\n").partition("\n")[0]
    return line.startswith("{") and ("\t" not in line or isinstance(_read(line), Example))


def _read(line: str) -> Example | str:
    """The example in a line, or the reason why it has none."""
    if not line or line.isspace():
        return BLANK
    try:
        given = json.loads(line, object_pairs_hook=_distinct)
    except _NamedTwiceError:
        return NAMED_TWICE
    except (ValueError, RecursionError):
        return NO_OBJECT
    if not isinstance(given, dict):
        return NO_OBJECT
    return _fault(given) or example_of(given)


def _fault(given: Mapping[str, Any]) -> str | None:
    if reason := wrong_field(given):
        return reason
    for name in _REQUIRED:
        if name not in given:
            return f"lacks the field {name!r}"
    if not isinstance(given["query"], str):
        return "query is not a text"
    for name in ("pos", "neg"):
        if not _are_texts(given.get(name, [])):
            written = (
                f'; one text is written as a list, too: {{"{name}": ["..."]}}' if isinstance(given[name], str) else ""
            )
            return f"{name} is not a list of texts{written}"
    return None


def _are_texts(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(text, str) for text in given)


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _NamedTwiceError
    return values
