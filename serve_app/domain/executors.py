"""Threads of an ingress replica beside its event loop, so that the long list of one request does not delay others.

The event loop's default executor serves large JSON and files, first come first served. A list of texts may take many
seconds to tokenise, so lists are processed in slices, in their own threads, where slices of different lists alternate.
Reads of small files, such as a fine-tune's manifest, have other threads and never wait for lists.

The threads are the standard library's pools. With ``anyio.to_thread`` and a limiter, a request that is cancelled would
either wait for its thread (a folder that hangs), or free its slot while the thread runs on, without a bound on threads.
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

_SLICE = 64 * 1024  # characters, about 25 ms of tokenising; or token ids, about 3 ms of checking

LIST_THREADS = 4

_io_threads = ThreadPoolExecutor(2, thread_name_prefix="io")
_list_threads = ThreadPoolExecutor(LIST_THREADS, thread_name_prefix="list")

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


async def run_io(function: Callable[P, R], *args: P.args, **more: P.kwargs) -> R:
    """Runs a function that reads a folder or a small file."""
    return await _run(_io_threads, partial(function, *args, **more))


async def run_chunked(
    work: Callable[[Sequence[T]], R], items: Sequence[T], sizes: Iterable[int], *, overhead: int = 0
) -> list[R]:
    """Runs a function on a list in slices, between which the slices of other lists may run.

    Args:
        work: Called in a thread, on one slice after the other.
        items: The list.
        sizes: Work for each item, in characters or token ids.
        overhead: Work for each slice beside its items; a slice is at least this large.

    Returns:
        The result of each slice, in order; at least one.

    Raises:
        ServiceError: Raised by ``work``; its ``item`` is the index in the whole list.
    """
    results = []
    for part in chunk_slices(sizes, max(_SLICE, overhead)) or [slice(0, 0)]:
        try:
            results.append(await _run(_list_threads, partial(work, items[part])))
        except ServiceError as error:
            if error.item is not None:
                error.item += part.start
            raise
    return results


async def _run(threads: Executor, function: Callable[[], R]) -> R:
    """As ``asyncio.to_thread``, with context variables: log records of the thread have the request's id."""
    return await asyncio.get_running_loop().run_in_executor(threads, copy_context().run, function)
