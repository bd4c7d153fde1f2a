"""What breaks, and how little else breaks with it; and what is reported of each forward."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable, Sequence

import pytest

from serve_app.domain.background import BackgroundTaskError
from serve_app.domain.errors import InternalError, NonFiniteError, OutOfMemoryError, ServiceError, UnavailableError
from serve_app.models.batching import scheduler as scheduler_module
from serve_app.models.batching.scheduler import MicroBatchReport, Scheduler
from tests.unit.models.fake_device import FakeDevice, Item, results_of, serving, submit, texts, turns


class BrokenDevice(FakeDevice):
    """Behaves as configured for every micro-batch that has a text whose name starts with ``bad``."""

    def __init__(self, misbehave: Callable[[Sequence[Item]], Sequence[str | ServiceError]]) -> None:
        super().__init__()
        self._misbehave = misbehave

    def answer(self, items: Sequence[Item]) -> Sequence[str | ServiceError]:
        if any(name.startswith("bad") for name, _ in items):
            return self._misbehave(items)
        return super().answer(items)


def raising(error: Exception) -> Callable[[Sequence[Item]], Sequence[str | ServiceError]]:
    def misbehave(_: Sequence[Item]) -> Sequence[str | ServiceError]:
        raise error

    return misbehave


async def test_a_forward_that_raises_fails_its_own_texts_alone() -> None:
    device = BrokenDevice(raising(RuntimeError("kernel")))
    async with serving(device, padding=0) as scheduler:
        before = submit(scheduler, texts("good", [10]), key=1)
        bad = submit(scheduler, texts("bad", [20, 20]), key=2)
        mixed = submit(scheduler, [("other", 20), ("fine", 30)], key=3)
        after = submit(scheduler, texts("late", [40]), key=4)
        assert await results_of(before) == ["vector of good0"]
        assert [type(result) for result in await results_of(bad)] == [InternalError, InternalError]
        failed, fine = await results_of(mixed)  # its first text was in the same forward
        assert isinstance(failed, InternalError)
        assert "kernel" in failed.message
        assert fine == "vector of fine"
        assert await results_of(after) == ["vector of late0"]
        assert await results_of(submit(scheduler, texts("new", [20]))) == ["vector of new0"]


async def test_an_expected_error_of_a_forward_reaches_the_texts_as_it_is() -> None:
    error = OutOfMemoryError("too long for this device")
    async with serving(BrokenDevice(raising(error))) as scheduler:
        assert await results_of(submit(scheduler, texts("bad", [10, 10]))) == [error, error]


async def test_an_error_in_place_of_a_result_fails_that_text_alone() -> None:
    error = NonFiniteError("no finite vector")
    device = BrokenDevice(lambda items: [error if name == "bad1" else f"vector of {name}" for name, _ in items])
    async with serving(device) as scheduler:
        results = await results_of(submit(scheduler, texts("bad", [10, 10, 10])))
        assert results == ["vector of bad0", error, "vector of bad2"]


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_a_forward_with_a_wrong_number_of_results_fails_its_texts(count: int) -> None:
    async with serving(BrokenDevice(lambda _: ["?"] * count)) as scheduler:
        results = await results_of(submit(scheduler, texts("bad", [10, 10])))
        assert [type(result) for result in results] == [InternalError, InternalError]
        assert await results_of(submit(scheduler, texts("good", [10]))) == ["vector of good0"]


async def test_stopping_fails_what_waits_and_what_is_on_the_device() -> None:
    device = FakeDevice(held=True)
    async with serving(device, batch=10) as scheduler:
        ticket = submit(scheduler, texts("t", [10, 10, 10]), key=1)
        other = submit(scheduler, texts("other", [10]), key=2)
        await device.finish()
        await scheduler.stop()
        results = [*await results_of(ticket, 0.5), *await results_of(other, 0.5)]
    assert results[0] == "vector of t0"
    assert [type(result) for result in results[1:]] == [InternalError] * 3


async def test_a_report_that_raises_does_not_stop_the_scheduler() -> None:
    def report(_: MicroBatchReport) -> None:
        raise ValueError("no such label")

    async with serving(FakeDevice(), batch=10, report=report) as scheduler:
        assert await results_of(submit(scheduler, texts("t", [10, 10]))) == ["vector of t0", "vector of t1"]


async def test_a_report_describes_the_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 100.0

        @classmethod
        def monotonic(cls) -> float:
            return cls.now

    monkeypatch.setattr(scheduler_module, "time", Clock)
    reports: list[MicroBatchReport] = []
    device = FakeDevice(held=True)
    async with serving(device, batch=30, report=reports.append) as scheduler:
        submit(scheduler, texts("a", [10, 8]), key=1)
        Clock.now += 3.0
        submit(scheduler, texts("b", [9]), key=2)
        await turns()
        Clock.now += 0.25
        await device.finish()
    assert reports == [
        MicroBatchReport(texts=3, tokens=27, padded_tokens=30, longest_wait_s=3.0, forward_s=0.25),
    ]


async def test_a_forward_is_known_with_its_padded_tokens_while_it_runs_and_only_then() -> None:
    device = FakeDevice(held=True)
    async with serving(device) as scheduler:
        assert scheduler.under_way is None
        before = time.monotonic()
        submit(scheduler, texts("t", [10, 7]))
        await turns()
        assert scheduler.under_way is not None
        assert scheduler.under_way.padded_tokens == 20
        assert before <= scheduler.under_way.began <= time.monotonic()
        await device.finish()
        assert scheduler.under_way is None


# ------------------------------------------------------------------ the loop itself


def broken(*_: object, **__: object) -> None:
    raise KeyError("a bug")


@pytest.mark.parametrize("where", ["take", "settle"])
async def test_when_the_loop_fails_every_request_is_answered_at_once_and_the_check_has_the_reason(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    async with serving(FakeDevice(), batch=10) as scheduler:
        scheduler.check()
        if where == "take":
            monkeypatch.setattr(scheduler._backlog, "take", broken)
        else:
            monkeypatch.setattr(scheduler, "_settle", broken)
        tickets = [submit(scheduler, texts("t", [10, 10]), key=key) for key in range(3)]
        for ticket in tickets:
            errors = await results_of(ticket, 5)
            assert [type(error) for error in errors] == [InternalError] * 2
            assert "no micro-batches are formed any more: KeyError('a bug')" in str(errors[0])
        with pytest.raises(BackgroundTaskError, match="'micro-batches' failed: KeyError"):
            scheduler.check()
        with pytest.raises(UnavailableError, match=r"has failed \(KeyError"):
            submit(scheduler, texts("late", [10]))


class Thing:
    """What a weak reference can point at."""


async def test_an_idle_scheduler_keeps_nothing_of_its_last_micro_batch_alive() -> None:
    async def forward(items: Sequence[Thing]) -> list[Thing]:
        return [Thing() for _ in items]

    scheduler: Scheduler[Thing, Thing] = Scheduler(
        forward, max_batch_tokens=100, max_padding_tokens=0, max_backlog_tokens=1000
    )
    scheduler.start()
    items = [Thing(), Thing()]
    ticket = scheduler.submit(items, [10, 10], key=1, timeout_s=60.0, group=(group := Thing()))
    results = await asyncio.wait_for(ticket.done, 10)
    alive = [weakref.ref(thing) for thing in (*items, *results, group)]
    await turns()
    del items, results, ticket, group
    gc.collect()
    assert [thing() for thing in alive] == [None] * 5
    await scheduler.stop()
