"""How much may wait, how long, and what happens to the work of callers that went away."""

from __future__ import annotations

import asyncio

import pytest

from serve_app.domain.errors import DeadlineError, QueueFullError
from serve_app.models.batching import scheduler as scheduler_module
from tests.unit.models.fake_device import FakeDevice, results_of, serving, submit, texts, turns

# ------------------------------------------------------------------ the backlog's bound


async def test_more_waiting_tokens_than_the_bound_are_refused() -> None:
    device = FakeDevice(held=True)
    async with serving(device, backlog=100) as scheduler:
        submit(scheduler, texts("a", [60]), key=1)
        submit(scheduler, texts("b", [40]), key=2)  # exactly at the bound
        assert scheduler.backlog_tokens == 100
        with pytest.raises(QueueFullError, match="100 tokens wait") as caught:
            submit(scheduler, texts("c", [1]), key=3)
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s >= 1
        assert scheduler.backlog_tokens == 100  # the refused text left nothing behind


async def test_an_empty_backlog_admits_any_request() -> None:
    device = FakeDevice(held=True)
    async with serving(device, backlog=100) as scheduler:
        big = submit(scheduler, texts("big", [1000]))
        await turns()
        assert device.names == [["big0"]]  # on the device, so nothing waits
        next_one = submit(scheduler, texts("next", [1000]))
        with pytest.raises(QueueFullError):
            submit(scheduler, texts("more", [1]))
        await device.finish(2)
        assert await results_of(big) == ["vector of big0"]
        assert await results_of(next_one) == ["vector of next0"]


async def test_served_texts_make_room() -> None:
    device = FakeDevice(held=True)
    async with serving(device, batch=50, backlog=100) as scheduler:
        submit(scheduler, texts("a", [50, 50]))
        with pytest.raises(QueueFullError):
            submit(scheduler, texts("b", [50]))
        await turns()  # the first text goes to the device
        submit(scheduler, texts("b", [50]))


async def test_retry_after_is_the_time_that_a_tenth_of_the_backlog_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 1000.0

        @classmethod
        def monotonic(cls) -> float:
            return cls.now

    monkeypatch.setattr(scheduler_module, "time", Clock)
    device = FakeDevice(held=True)
    async with serving(device, batch=100, backlog=5000) as scheduler:
        submit(scheduler, texts("measured", [100]))
        await turns()
        Clock.now += 2.0  # 50 tokens a second
        await device.finish()
        submit(scheduler, texts("waits", [5000]))
        with pytest.raises(QueueFullError) as caught:
            submit(scheduler, texts("more", [1]))
        assert caught.value.retry_after_s == pytest.approx(0.1 * 5000 / 50)


# ------------------------------------------------------------------ callers that went away


async def test_cancelling_takes_the_waiting_texts_out_and_frees_their_tokens() -> None:
    device = FakeDevice(held=True)
    async with serving(device, batch=10) as scheduler:
        gone = submit(scheduler, texts("gone", [10, 9, 8]), key=1)
        stays = submit(scheduler, texts("stays", [10, 7]), key=2)
        await turns()
        assert device.names == [["gone0"]]  # too late for this one
        gone.done.cancel()
        await turns()
        assert (scheduler.waiting_texts, scheduler.backlog_tokens) == (2, 17)
        await device.finish(3)
        assert await results_of(stays) == ["vector of stays0", "vector of stays1"]
    assert device.names == [["gone0"], ["stays0"], ["stays1"]]


async def test_cancelling_makes_room_for_others() -> None:
    device = FakeDevice(held=True)
    async with serving(device, backlog=100) as scheduler:
        submit(scheduler, texts("first", [10]), key=0)
        await turns()
        gone = submit(scheduler, texts("gone", [100]), key=1)
        with pytest.raises(QueueFullError):
            submit(scheduler, texts("stays", [100]), key=2)
        gone.done.cancel()
        await turns(1)
        stays = submit(scheduler, texts("stays", [100]), key=2)
        await device.finish(2)
        assert await results_of(stays) == ["vector of stays0"]
    assert device.names == [["first0"], ["stays0"]]


async def test_cancelling_one_part_of_a_request_leaves_the_other_parts() -> None:
    device = FakeDevice()
    async with serving(device, batch=10) as scheduler:
        parts = [submit(scheduler, texts(name, [10, 10]), key=1) for name in "abc"]
        parts[1].done.cancel()
        assert await results_of(parts[2]) == ["vector of c0", "vector of c1"]
        assert await results_of(parts[0]) == ["vector of a0", "vector of a1"]
    assert device.names == [["a0"], ["a1"], ["c0"], ["c1"]]


async def test_cancelling_after_the_answer_changes_nothing() -> None:
    async with serving(FakeDevice()) as scheduler:
        ticket = submit(scheduler, texts("t", [10]))
        assert await results_of(ticket) == ["vector of t0"]
        assert not ticket.done.cancel()
        assert scheduler.backlog_tokens == 0


# ------------------------------------------------------------------ deadlines


async def test_at_the_deadline_what_is_done_stays_done_and_the_rest_fails() -> None:
    device = FakeDevice(held=True)
    async with serving(device, batch=10) as scheduler:
        ticket = submit(scheduler, texts("t", [10, 10, 10]), timeout_s=0.03)
        await device.finish()
        done, on_device, waiting = await results_of(ticket)
        assert done == "vector of t0"
        assert isinstance(on_device, DeadlineError)
        assert isinstance(waiting, DeadlineError)
        assert waiting.message == "the deadline passed while the text waited for the device"
        await turns()
        assert (scheduler.waiting_texts, scheduler.backlog_tokens) == (0, 0)
        await device.finish(2)
    assert device.names == [["t0"], ["t1"]]  # the third never ran


async def test_a_deadline_of_one_request_is_none_for_the_others() -> None:
    device = FakeDevice(held=True)
    async with serving(device, batch=10) as scheduler:
        patient = submit(scheduler, texts("patient", [10, 10]), key=1)
        hasty = submit(scheduler, texts("hasty", [10, 10]), key=2, timeout_s=0.02)
        assert [type(result) for result in await results_of(hasty)] == [DeadlineError, DeadlineError]
        await device.finish(4)
        assert await results_of(patient) == ["vector of patient0", "vector of patient1"]
    assert not [name for names in device.names for name in names if name == "hasty1"]


async def test_a_deadline_that_has_passed_already_runs_nothing() -> None:
    device = FakeDevice(held=True)
    async with serving(device, batch=10) as scheduler:
        submit(scheduler, texts("first", [10]), key=1)
        await turns()
        late = submit(scheduler, texts("late", [10]), key=2, timeout_s=0.0)
        (result,) = await results_of(late)
        assert isinstance(result, DeadlineError)
        await device.finish(2)
    assert device.names == [["first0"]]


async def test_an_answer_in_time_stops_the_clock() -> None:
    async with serving(FakeDevice()) as scheduler:
        ticket = submit(scheduler, texts("t", [10]), timeout_s=0.05)
        await results_of(ticket)
        await turns()
        assert ticket.timer is not None
        assert ticket.timer.cancelled()


# ------------------------------------------------------------------ nothing to do


async def test_a_request_without_texts_is_answered_at_once_even_if_the_device_is_busy() -> None:
    device = FakeDevice(held=True)
    async with serving(device) as scheduler:
        submit(scheduler, texts("t", [10]))
        await turns()
        empty = submit(scheduler, [])
        assert empty.done.done()
        assert await results_of(empty) == []
        assert len(device.batches) == 1


async def test_an_idle_scheduler_wakes_for_new_work_again_and_again() -> None:
    device = FakeDevice()
    async with serving(device) as scheduler:
        for i in range(3):
            assert await results_of(submit(scheduler, [(f"t{i}", 5)])) == [f"vector of t{i}"]
            await asyncio.sleep(0.001)
    assert device.names == [["t0"], ["t1"], ["t2"]]


async def test_an_idle_scheduler_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0
    async with serving(FakeDevice()) as scheduler:
        take = scheduler._backlog.take

        def counted():  # type: ignore[no-untyped-def]
            nonlocal looked
            looked += 1
            return take()

        monkeypatch.setattr(scheduler._backlog, "take", counted)
        await results_of(submit(scheduler, texts("t", [5])))
        await turns(100)
        assert looked == 2  # the text, and that there is nothing more
