"""Background tasks of a process, supervised: the end of a task fails the next health check."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

logger = logging.getLogger(__name__)

Work: TypeAlias = Coroutine[Any, Any, None]


class BackgroundTaskError(RuntimeError):
    """A background task that the process needs has ended."""


class BackgroundTasks:
    """The background tasks of one process, on one event loop; it records their failures."""

    def __init__(self) -> None:
        """Starts without tasks."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: dict[str, str] = {}
        self._is_stopping = False

    def start(
        self, name: str, work: Work, *, may_end: bool = False, on_failure: Callable[[str], None] = lambda _: None
    ) -> asyncio.Task[None]:
        """Starts a task on the running event loop. If it fails, the log has the trace and ``check`` the reason.

        Args:
            name: For the log and for ``check``, as in "the background task 'NAME' failed".
            work: Coroutine to run.
            may_end: Whether the work may end without an error; otherwise its end is a failure.
            on_failure: Called with the reason, at once.
        """
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, name, may_end, on_failure))
        return task

    def every(self, name: str, seconds: float, work: Callable[[], Awaitable[None] | None]) -> asyncio.Task[None]:
        """Calls a function periodically, first after a pause; an error is logged, and the task continues."""

        async def repeat() -> None:
            while True:
                await asyncio.sleep(seconds)
                try:
                    doing = work()
                    if inspect.isawaitable(doing):
                        await doing
                except Exception:
                    logger.exception("the background task %r failed; it continues", name)

        return self.start(name, repeat())

    def check(self) -> None:
        """Part of a health check.

        Raises:
            BackgroundTaskError: A task has failed; the message has its name and the reason.
        """
        for name, reason in self._failures.items():
            raise BackgroundTaskError(f"the background task {name!r} failed: {reason}")

    async def stop(self) -> None:
        """Cancels all tasks and waits for their end."""
        self._is_stopping = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, name: str, may_end: bool, on_failure: Callable[[str], None], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._is_stopping:
            return
        error = None if task.cancelled() else task.exception()
        if error is None and may_end and not task.cancelled():
            return
        reason = "it was cancelled" if task.cancelled() else "it ended" if error is None else repr(error)
        self._failures[name] = reason
        logger.error("the background task %r failed: %s", name, reason, exc_info=error)
        on_failure(reason)
