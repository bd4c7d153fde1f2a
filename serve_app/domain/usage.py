"""What a request costs in tokens, reported from the layer that tokenises to the one that checks the API key.

The layers between need not pass it on: it travels in a context variable, which every request has for itself and
which threads that work for the request see, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Charge = Callable[[int], Awaitable[None]]


async def _free(tokens: int) -> None:
    """Charges nothing."""


class Usage:
    """A count that grows.

    Attributes:
        tokens: Tokens read so far, special tokens and prefixes included.
    """

    def __init__(self, charge: Charge = _free) -> None:
        """Starts at zero.

        Args:
            charge: Awaited with the new count before it holds; it raises where the request may not have so many.
        """
        self.tokens = 0
        self._charge = charge

    async def add(self, tokens: int) -> None:
        """Counts tokens, unless ``charge`` raises."""
        self.tokens += tokens
        try:
            await self._charge(self.tokens)
        except BaseException:
            self.tokens -= tokens
            raise


_usage: ContextVar[Usage | None] = ContextVar("usage", default=None)


@contextmanager
def measured(charge: Charge = _free) -> Iterator[Usage]:
    """Counts what is read inside of the block; ``charge`` as in ``Usage``."""
    usage = Usage(charge)
    token = _usage.set(usage)
    try:
        yield usage
    finally:
        _usage.reset(token)


async def add_tokens(tokens: int) -> None:
    """Counts tokens for the request at hand, before anything is computed of them; does nothing if nobody measures.

    Raises:
        ServiceError: The API key of the request may not spend so many.
    """
    usage = _usage.get()
    if usage is not None:
        await usage.add(tokens)
