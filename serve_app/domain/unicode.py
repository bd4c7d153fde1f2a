"""Whether a string is text."""

from __future__ import annotations


def is_unicode(text: str) -> bool:
    r"""Whether it has a UTF-8 form.

    JSON can spell half of a surrogate pair (``"\ud83d"``); no tokenizer reads it, and no reply or file can hold it.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
