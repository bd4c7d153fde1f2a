"""Checks and normalisation of Unicode text."""

from __future__ import annotations

import unicodedata


def is_unicode(text: str) -> bool:
    r"""Whether a string has a UTF-8 form.

    JSON can spell half of a surrogate pair (``"\ud83d"``); no tokenizer, reply or file can represent it.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def fold(text: str) -> str:
    """The text with case, Unicode form (NFKC) and white space normalised, for comparing spellings."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(text.casefold().split())
