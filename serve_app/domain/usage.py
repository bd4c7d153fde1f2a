"""What a request has cost in tokens, told from deep inside to whoever counts at the door.

The middle layers need not hand it through: it travels in a context variable, which every request has for itself and
which threads that work for the request see too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Usage:
    """A count that grows.

    Attributes:
        tokens: Tokens read so far, special tokens and prefixes included.
    """

    def __init__(self) -> None:
        self.tokens = 0


_usage: ContextVar[Usage | None] = ContextVar("usage", default=None)


@contextmanager
def measured() -> Iterator[Usage]:
    """Counts what is read inside of the block."""
    usage = Usage()
    token = _usage.set(usage)
    try:
        yield usage
    finally:
        _usage.reset(token)


def add_tokens(tokens: int) -> None:
    """Counts tokens for the request at hand; does nothing if nobody measures."""
    usage = _usage.get()
    if usage is not None:
        usage.tokens += tokens
