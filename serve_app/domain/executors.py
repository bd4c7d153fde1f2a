"""What an ingress replica does beside its event loop, so that nobody waits for a long list of somebody else.

Its default executor has a few threads, first come first served: enough for large JSON and for files, which are read at
a stretch. A list of texts takes many seconds to tokenise. So lists go slice by slice through threads of their
own, and take turns there; and looking for a fine-tune, which every request to one does, waits for no list at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

from serve_app.domain.errors import ServiceError
from serve_app.domain.ragged import chunk_slices

_SLICE = 64 * 1024  # characters, some 25 ms of tokenising; or token ids, some 3 ms of looking through them

LIST_THREADS = 4

_look_ups = ThreadPoolExecutor(2, thread_name_prefix="look-up")
_lists = ThreadPoolExecutor(LIST_THREADS, thread_name_prefix="list")

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


async def run_io(function: Callable[P, R], *args: P.args, **more: P.kwargs) -> R:
    """Runs something that looks into a folder or reads a small file."""
    return await _run(_look_ups, partial(function, *args, **more))


async def run_chunked(
    work: Callable[[Sequence[T]], R], items: Sequence[T], sizes: Iterable[int], *, overhead: int = 0
) -> list[R]:
    """Does work on a list in slices; other lists have their turn between two of them.

    Args:
        work: Run in a thread, on one slice after the other.
        items: The list.
        sizes: How much work each item is, in characters or token ids.
        overhead: How much work each slice is beside its items; slices are made so large that it is at most half.

    Returns:
        What came of each slice, in order; at least one result.

    Raises:
        ServiceError: What ``work`` raised; its ``item`` is the index in the whole list.
    """
    results = []
    for part in chunk_slices(sizes, max(_SLICE, overhead)) or [slice(0, 0)]:
        try:
            results.append(await _run(_lists, partial(work, items[part])))
        except ServiceError as error:
            if error.item is not None:
                error.item += part.start
            raise
    return results


async def _run(threads: Executor, function: Callable[[], R]) -> R:
    """As ``asyncio.to_thread``: what is logged in the thread carries the request's id."""
    return await asyncio.get_running_loop().run_in_executor(threads, copy_context().run, function)
