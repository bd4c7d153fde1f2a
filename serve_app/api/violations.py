"""Messages for violations of a schema: field names and sentences from pydantic's errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serve_app.api.field_patterns import IN_WORDS
from serve_app.api.union_tags import UNION_TAGS

MAX_VIOLATIONS = 5


def describe_violations(errors: Sequence[Any], *, within: tuple[int | str, ...] = ()) -> str:
    """A line such as ``items[3]: input should be a valid string`` for the first few violations.

    Args:
        errors: Pydantic's list of errors.
        within: Location of the validated value in the request.
    """
    lines = [f"{field_name((*within, *e['loc']))}: {_in_words(e)}" for e in errors[:MAX_VIOLATIONS]]
    if len(errors) > MAX_VIOLATIONS:
        lines.append(f"and {len(errors) - MAX_VIOLATIONS} more")
    return "; ".join(lines)


def field_name(location: Sequence[int | str]) -> str:
    """``("body", "items", 3, "text")`` as ``items[3].text``; tags of unions are left out."""
    name = ""
    for part in location[1:] if location and location[0] == "body" else location:
        if isinstance(part, int):
            name += f"[{part}]" if name else f"position {part}"
        elif part not in UNION_TAGS:
            name += f".{part}" if name else part
    return name or "body"


def _in_words(error: Any) -> str:
    """Pydantic's message, with a sentence in place of a regular expression."""
    if error["type"] == "string_pattern_mismatch":
        return IN_WORDS.get(error["ctx"]["pattern"], lower_first(error["msg"]))
    return lower_first(error["msg"])


def lower_first(message: str) -> str:
    """A message that begins with a small letter, unless its first word is in capitals."""
    return message if message[1:2].isupper() else message[:1].lower() + message[1:]
