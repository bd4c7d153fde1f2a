"""Whether a string is text, and whether two texts are one but for the way they are written."""

from __future__ import annotations

import unicodedata


def is_unicode(text: str) -> bool:
    r"""Whether it has a UTF-8 form.

    JSON can spell half of a surrogate pair (``"\ud83d"``); no tokenizer reads it, and no reply or file can hold it.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def fold(text: str) -> str:
    """The text without case, Unicode form (NFKC) and differences of white space: what two spellings of it share."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(text.casefold().split())
