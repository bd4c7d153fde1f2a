"""One token of a text, as clients see it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Token:
    """A token and its position.

    Attributes:
        id: Its number in the model's vocabulary.
        text: Its part of the text, including a blank before a word; the name of a special token.
        special: Whether it was added around the text.
        start: First byte in the text's UTF-8 form; None for a special token.
        stop: Byte after the last one; None for a special token.
    """

    id: int
    text: str
    special: bool
    start: int | None = None
    stop: int | None = None
