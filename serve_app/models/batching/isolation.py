"""Isolation of failures: a failed micro-batch is split until the failing text is alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from serve_app.domain.errors import InternalError, OutOfMemoryError, ServiceError

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_on_split: ContextVar[Callable[[], None]] = ContextVar("_on_split", default=lambda: None)


@contextmanager
def observing_memory(on_split: Callable[[], None]) -> Iterator[None]:
    """Calls ``on_split`` each time that ``run_isolated`` splits for lack of memory in the block, in its thread."""
    token = _on_split.set(on_split)
    try:
        yield
    finally:
        _on_split.reset(token)


def run_isolated(compute: Callable[[Sequence[T]], Sequence[R | ServiceError]], items: Sequence[T],
                 *, release_memory: Callable[[], None] = lambda: None) -> list[R | ServiceError]:  # fmt: skip
    """Runs ``compute`` on all items; if it raises, on each half, down to single items.

    Args:
        compute: Results in the order of its argument.
        items: Inputs; may be empty.
        release_memory: Called after an out-of-memory error, before the halves are tried.

    Returns:
        One result or error for each item, in order. This function itself never raises ``Exception``.
    """
    if not items:
        return []
    try:
        return list(compute(items))
    except Exception as error:
        out_of_memory = is_out_of_memory(error)
        failure = _failure(error, out_of_memory)
        if len(items) == 1:
            logger.error("a text failed alone: %r", error, exc_info=not out_of_memory)
    # outside of the handler: the traceback holds the tensors of the failed attempt alive
    if out_of_memory:
        release_memory()
    if len(items) == 1:
        return [failure]
    logger.warning("a micro-batch of %d texts failed (%s); trying its halves", len(items), failure.message)
    if out_of_memory:
        _on_split.get()()
    half = len(items) // 2
    return [
        result
        for part in (items[:half], items[half:])
        for result in run_isolated(compute, part, release_memory=release_memory)
    ]


def is_out_of_memory(error: BaseException) -> bool:
    """True if an error means that the device, or the host, ran out of memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without torch
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def _failure(error: Exception, out_of_memory: bool) -> ServiceError:
    if out_of_memory:
        return OutOfMemoryError(
            "the device has too little memory for this text; send a shorter one or use a device with more memory"
        )
    if isinstance(error, ServiceError):
        return error
    return InternalError(f"{type(error).__name__}: {error}")
