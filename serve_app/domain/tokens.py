"""One token of a text, as a client may see it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Token:
    """A token and where it stands.

    Attributes:
        id: Its number in the model's vocabulary.
        text: The part of the text that it stands for, a blank in front of a word included; a special token's name.
        special: Whether it was put around the text and stands for none of it.
        start: Byte of the text's UTF-8 form at which it begins; None for a special token.
        stop: The byte behind its last one; likewise.
    """

    id: int
    text: str
    special: bool
    start: int | None = None
    stop: int | None = None
