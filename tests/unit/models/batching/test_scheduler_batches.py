"""What goes into one forward, and that every text gets its own answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.models.fake_device import FakeDevice, Item, answer_to, results_of, serving, submit, texts


def forwards_of(lengths: list[int], *, batch: int, padding: int) -> list[list[int]]:
    """The micro-batches, as lengths, of one request whose texts all wait before the device is free."""

    async def run() -> list[list[int]]:
        device = FakeDevice()
        async with serving(device, batch=batch, padding=padding) as scheduler:
            await results_of(submit(scheduler, texts("t", lengths)))
        return [[length for _, length in batch] for batch in device.batches]

    return asyncio.run(run())


@given(st.permutations(range(1, 20)), st.integers(1, 120), st.integers(0, 60))
def test_results_are_in_the_order_of_the_texts(lengths: list[int], batch: int, padding: int) -> None:
    async def run() -> None:
        items = texts("t", lengths)
        async with serving(FakeDevice(), batch=batch, padding=padding) as scheduler:
            assert await results_of(submit(scheduler, items)) == [answer_to(item) for item in items]

    asyncio.run(run())


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 120), st.integers(0, 60))
def test_a_forward_is_within_the_padded_budget_unless_it_is_a_single_text(
    lengths: list[int], batch: int, padding: int
) -> None:
    forwards = forwards_of(lengths, batch=batch, padding=padding)
    assert sorted(length for forward in forwards for length in forward) == sorted(lengths)
    for forward in forwards:
        assert max(forward) * len(forward) <= batch or len(forward) == 1


def test_a_text_over_the_budget_goes_alone() -> None:
    assert sorted(forwards_of([300, 10, 299, 10], batch=100, padding=1000)) == [[10, 10], [299], [300]]


@pytest.mark.parametrize(
    ("lengths", "padding", "forwards"),
    [
        ([10, 12], 2, [[10, 12]]),  # the longer text pads one other by 2
        ([10, 12], 1, [[10], [12]]),
        ([12, 10], 2, [[10, 12]]),  # the shorter text is padded by 2
        ([12, 10], 1, [[12], [10]]),
        ([10, 10, 10, 12], 6, [[10, 10, 10, 12]]),  # the longer text pads three others by 2 each
        ([10, 10, 10, 12], 5, [[10, 10, 10], [12]]),
        ([12, 10, 10, 10], 2, [[10, 10, 10, 12]]),  # each shorter text adds only its own padding
        ([10, 8, 13], 2, [[8, 10], [13]]),
        ([5, 5, 5], 0, [[5, 5, 5]]),
    ],
)
def test_a_text_joins_only_if_the_padding_it_adds_is_within_the_limit(
    lengths: list[int], padding: int, forwards: list[list[int]]
) -> None:
    assert forwards_of(lengths, batch=1000, padding=padding) == forwards


@pytest.mark.parametrize(
    ("lengths", "batch", "first"),
    [
        ([100, 5, 6, 99, 101, 7], 310, [99, 100, 101]),
        ([6, 100, 5, 99, 7, 101], 21, [5, 6, 7]),
        ([50, 10, 90, 49, 10, 90], 100, [49, 50]),
        ([50, 51, 90, 30, 10, 90], 102, [50, 51]),
    ],
)
def test_the_oldest_text_goes_with_its_neighbours_in_length(lengths: list[int], batch: int, first: list[int]) -> None:
    assert forwards_of(lengths, batch=batch, padding=1000)[0] == first


def test_texts_of_different_requests_share_a_forward() -> None:
    async def run() -> None:
        device = FakeDevice()
        async with serving(device, batch=100) as scheduler:
            tickets = [submit(scheduler, texts(f"{key}-", [10]), key=key) for key in range(7)]
            assert [await results_of(ticket) for ticket in tickets] == [[f"vector of {key}-0"] for key in range(7)]
        assert [len(batch) for batch in device.batches] == [7]

    asyncio.run(run())


class JudgingDevice(FakeDevice):
    """Knows what waits and judges each micro-batch by the rules, apart from how the scheduler finds it."""

    def __init__(self, batch: int, padding: int) -> None:
        super().__init__()
        self.waiting: dict[str, int] = {}
        self._parts: list[dict[str, int]] = []  # all that came since nothing waited
        self._served = self._last = 0  # tokens: before the last micro-batch, and of it
        self._batch, self._padding = batch, padding

    def expect(self, items: Sequence[Item]) -> None:
        self.waiting.update(items)
        self._parts.append(dict(items))

    async def __call__(self, items):  # type: ignore[no-untyped-def]
        self._judge(items)
        for name, _ in items:
            del self.waiting[name]  # fails if a text is taken twice
        self._served += self._last
        self._last = sum(length for _, length in items)
        if not self.waiting:
            self._parts, self._served, self._last = [], 0, 0
        return await super().__call__(items)

    def _judge(self, items: list[Item]) -> None:
        taken = sorted(length for _, length in items)
        high, count = taken[-1], len(taken)
        late = self._late()
        may_join = late if late.issuperset(name for name, _ in items) else set(self.waiting)
        assert high * count <= self._batch or count == 1
        for name in may_join - {name for name, _ in items}:  # every one that was left out had to be
            length = self.waiting[name]
            padding = high - length if length <= high else (length - high) * count
            fits = max(high, length) * (count + 1) <= self._batch
            assert padding > self._padding or not fits, "another text would have fitted"

    def _late(self) -> set[str]:
        """What first come, first served would have answered a micro-batch ago."""
        done, late = 0, set()
        for part in self._parts:
            done += sum(part.values())
            if done <= self._served:
                late |= part.keys() & self.waiting.keys()
        return late


@pytest.mark.parametrize("seed", range(12))
async def test_under_random_load_every_text_is_answered_once_and_every_forward_keeps_the_rules(seed: int) -> None:
    draw = random.Random(seed)
    batch, padding = draw.choice([(64, 8), (200, 40), (512, 0), (30, 1000)])
    device = JudgingDevice(batch, padding)

    async def client(key: int) -> None:
        for part in range(draw.randint(1, 3)):
            spread = draw.choice([3, 30, 200])
            items = texts(f"{key}/{part}/", [draw.randint(1, spread) for _ in range(draw.randint(1, 40))])
            device.expect(items)
            ticket = submit(scheduler, items, key=key)
            assert await results_of(ticket) == [answer_to(item) for item in items]
            for _ in range(draw.randint(0, 5)):
                await asyncio.sleep(0)

    async with serving(device, batch=batch, padding=padding) as scheduler:
        await asyncio.gather(*(client(key) for key in range(25)))
        assert (scheduler.waiting_texts, scheduler.backlog_tokens, device.waiting) == (0, 0, {})
    taken = [name for names in device.names for name in names]
    assert len(taken) == len(set(taken)) > 25


def test_the_checker_finds_a_forward_that_breaks_a_rule() -> None:
    device = JudgingDevice(batch=100, padding=5)
    device.expect(texts("t", [10, 11, 12, 40]))
    for bad in ([("t0", 10), ("t2", 12)], [("t0", 10)], [("t1", 11), ("t2", 12), ("t3", 40)]):
        with pytest.raises(AssertionError):
            device._judge(bad)
    device._judge(texts("t", [10, 11, 12]))
