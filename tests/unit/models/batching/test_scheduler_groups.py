"""Texts that must not share a forward, and requests that bound their texts in one."""

from __future__ import annotations

import random

import pytest

from tests.unit.models.fake_device import FakeDevice, answer_to, results_of, serving, submit, texts, turns


async def test_texts_of_different_groups_never_share_a_forward() -> None:
    device = FakeDevice(held=True)
    async with serving(device) as scheduler:
        submit(scheduler, texts("first", [10]), key=0)
        await turns()
        for key, group in enumerate(["a", "b", "a", None, "b"], start=1):
            submit(scheduler, texts(f"{group}{key}-", [10]), key=key, group=group)
        await device.finish(4)
    assert [sorted(names) for names in device.names[1:]] == [["a1-0", "a3-0"], ["b2-0", "b5-0"], ["None4-0"]]


async def test_groups_are_served_in_turn_and_none_waits_for_all_of_another() -> None:
    device = FakeDevice(held=True)
    async with serving(device, batch=100, padding=0) as scheduler:
        submit(scheduler, texts("bulk", [10] * 1000), key=1, group="a")
        await device.finish(3)
        before = len(device.batches)
        submit(scheduler, texts("single", [10]), key=2, group="b")
        await device.finish(2)
    assert ["single0"] in device.names[before : before + 2]


@pytest.mark.parametrize("most", [1, 3, 12])
async def test_a_request_never_has_more_texts_in_a_forward_than_it_allows(most: int) -> None:
    device = FakeDevice()
    draw = random.Random(most)
    async with serving(device, batch=500) as scheduler:
        items = texts("t", [draw.randint(1, 30) for _ in range(60)])
        others = texts("other", [10] * 40)
        bounded = submit(scheduler, items, key=1, max_texts=most)
        free = submit(scheduler, others, key=2)
        assert await results_of(bounded) == [answer_to(item) for item in items]
        await results_of(free)
    counts = [sum(name.startswith("t") for name in names) for names in device.names]
    assert max(counts) == most
    assert max(map(len, device.names)) > 12, "the others are not bounded"


async def test_an_abandoned_request_leaves_nothing_of_its_group_behind() -> None:
    device = FakeDevice(held=True)
    async with serving(device) as scheduler:
        submit(scheduler, texts("first", [10]), key=0)
        await turns()
        gone = submit(scheduler, texts("gone", [10] * 5), key=1, group="a")
        gone.done.cancel()
        kept = submit(scheduler, texts("kept", [10]), key=2, group="a")
        await device.finish(2)
        assert await results_of(kept) == ["vector of kept0"]
        assert (scheduler.waiting_texts, scheduler.backlog_tokens) == (0, 0)
    assert not any(name.startswith("gone") for names in device.names for name in names)
