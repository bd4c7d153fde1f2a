"""The tokens of a request, reported from the layer that tokenises to the middleware that checks the API key.

They are passed in a context variable, which is separate for each request and visible in threads that work for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Charge = Callable[[int], Awaitable[None]]


async def _free(tokens: int) -> None:
    """Charges nothing."""


class Usage:
    """A running count of tokens.

    Attributes:
        tokens: Tokens read so far, special tokens and prefixes included.
    """

    def __init__(self, charge: Charge = _free) -> None:
        """Starts at zero.

        Args:
            charge: Awaited with the new count before it holds; it raises if the request may not have that many.
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
    """Counts the tokens read within the block; ``charge`` as in ``Usage``."""
    usage = Usage(charge)
    token = _usage.set(usage)
    try:
        yield usage
    finally:
        _usage.reset(token)


async def add_tokens(tokens: int) -> None:
    """Counts tokens for the current request before they are computed; does nothing outside ``measured``.

    Raises:
        ServiceError: The API key's limit does not allow that many.
    """
    usage = _usage.get()
    if usage is not None:
        await usage.add(tokens)
