"""Background tasks: an end is noticed, an error in what is repeated is not the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from serve_app.domain.background import BackgroundTaskError, BackgroundTasks


@pytest.fixture
async def tasks() -> AsyncIterator[BackgroundTasks]:
    tasks = BackgroundTasks()
    yield tasks
    await tasks.stop()


async def ends() -> None: ...


async def fails() -> None:
    raise ValueError("no such key")


async def hangs() -> None:
    await asyncio.Event().wait()


async def test_a_task_that_runs_is_no_failure(tasks: BackgroundTasks) -> None:
    tasks.start("watch", hangs())
    await asyncio.sleep(0)
    tasks.check()


async def test_the_end_of_a_task_that_may_end_is_no_failure(tasks: BackgroundTasks) -> None:
    await tasks.start("banner", ends(), may_end=True)
    await asyncio.sleep(0)
    tasks.check()


@pytest.mark.parametrize(
    ("work", "may_end", "reason"),
    [(fails, False, r"ValueError\('no such key'\)"), (ends, False, "it ended")],
)  # fmt: skip
async def test_a_failure_is_logged_and_reported_at_once_and_fails_the_check_with_its_reason(
    tasks: BackgroundTasks, caplog: pytest.LogCaptureFixture, work, may_end: bool, reason: str  # type: ignore[no-untyped-def]
) -> None:  # fmt: skip
    reported = asyncio.get_running_loop().create_future()
    tasks.start("watch", work(), may_end=may_end, on_failure=reported.set_result)
    await asyncio.wait_for(reported, 5)
    for _ in range(2):
        with pytest.raises(BackgroundTaskError, match=f"the background task 'watch' failed: {reason}"):
            tasks.check()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_task_that_something_else_cancels_has_failed(tasks: BackgroundTasks) -> None:
    task = tasks.start("watch", hangs(), may_end=True)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    await asyncio.sleep(0)
    with pytest.raises(BackgroundTaskError, match="it was cancelled"):
        tasks.check()


async def test_what_is_stopped_has_not_failed() -> None:
    tasks = BackgroundTasks()
    task = tasks.start("watch", hangs())
    await tasks.stop()
    assert task.cancelled()
    tasks.check()


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_periodic_task_continues_after_an_error_and_logs_it(
    tasks: BackgroundTasks, caplog: pytest.LogCaptureFixture, is_async: bool
) -> None:
    calls = 0
    done = asyncio.Event()

    def work() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            done.set()
        raise OSError("the disk is away")

    async def later() -> None:
        work()

    tasks.every("metrics", 0, later if is_async else work)
    await asyncio.wait_for(done.wait(), 5)
    tasks.check()
    assert "the background task 'metrics' failed; it continues" in caplog.text
    assert "the disk is away" in caplog.text
