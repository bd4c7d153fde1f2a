"""Who waits for whom: nobody longer than a fair share of the device asks for."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.unit.models.fake_device import FakeDevice, results_of, serving, submit, texts


def tokens_by_request(device: FakeDevice, since: int = 0) -> Counter[str]:
    """Tokens that each request has had; a request is the first letter of its texts' names."""
    had: Counter[str] = Counter()
    for batch in device.batches[since:]:
        for name, length in batch:
            had[name[0]] += length
    return had


@pytest.mark.parametrize("length", [1, 20, 60, 100, 400])
@pytest.mark.parametrize("head_start", [0, 1, 17])
async def test_a_single_query_beside_a_long_list_is_in_the_first_or_second_forward_after_it(
    length: int, head_start: int
) -> None:
    draw = random.Random(length)
    device = FakeDevice(held=True)
    async with serving(device, batch=512, padding=16) as scheduler:
        submit(scheduler, texts("bulk", [draw.randint(10, 60) for _ in range(2000)]), key=1)
        await device.finish(head_start)
        before = len(device.batches)  # the last of them is on the device
        submit(scheduler, texts("single", [length]), key=2)
        await device.finish(3)
        forward = next(i for i, names in enumerate(device.names) if "single0" in names)
        assert forward - before in {0, 1}
        assert scheduler.waiting_texts > 0


@pytest.mark.parametrize("lists", [2, 4, 8])
@pytest.mark.parametrize("head_start", [1, 2, 7, 18])
async def test_a_single_query_beside_several_long_lists_is_in_the_next_forward(lists: int, head_start: int) -> None:
    draw = random.Random(lists)
    device = FakeDevice(held=True)
    async with serving(device, batch=384, padding=16) as scheduler:
        for key in range(lists):
            submit(scheduler, texts(f"bulk{key}-", [draw.randint(10, 400) for _ in range(1000)]), key=key)
        await device.finish(head_start)
        before = len(device.batches)  # the last of them is on the device
        submit(scheduler, texts("single", [20]), key=lists)
        await device.finish(2)
        assert "single0" in device.names[before]


async def test_of_requests_that_came_together_the_one_that_asks_for_least_goes_first() -> None:
    device = FakeDevice()
    async with serving(device, padding=0) as scheduler:
        tickets = [submit(scheduler, texts(f"{length}-", [length]), key=length) for length in (90, 10, 50)]
        for ticket in tickets:
            await results_of(ticket)
    assert device.names == [["10-0"], ["50-0"], ["90-0"]]


async def test_two_bulk_requests_share_the_device_equally_until_the_older_one_is_late() -> None:
    device = FakeDevice(held=True)
    budget = 512
    async with serving(device, batch=budget, padding=0) as scheduler:
        submit(scheduler, texts("a", [10] * 2000), key=1)
        submit(scheduler, texts("b", [70] * 300), key=2)
        for _ in range(40):  # first come, first served, the older one would be done then
            await device.finish()
            had = tokens_by_request(device)
            assert abs(had["a"] - had["b"]) <= 2 * budget
        assert min(had.values()) > 5000


async def test_a_bulk_request_that_comes_later_gets_half_from_then_on_and_no_more() -> None:
    device = FakeDevice(held=True)
    budget = 512
    async with serving(device, batch=budget, padding=0) as scheduler:
        submit(scheduler, texts("a", [10] * 3000), key=1)
        await device.finish(20)
        since = len(device.batches)
        submit(scheduler, texts("b", [70] * 300), key=2)
        for _ in range(40):
            await device.finish()
            had = tokens_by_request(device, since)
            assert abs(had["a"] - had["b"]) <= 2 * budget
        assert min(had.values()) > 5000


async def test_a_request_does_not_get_more_by_coming_in_parts() -> None:
    device = FakeDevice(held=True)
    budget = 512
    async with serving(device, batch=budget, padding=0) as scheduler:
        submit(scheduler, texts("b", [70] * 300), key=2)
        for _ in range(4):
            submit(scheduler, texts("a", [10] * 500), key=1)
        for _ in range(40):
            await device.finish()
            had = tokens_by_request(device)
            assert abs(had["a"] - had["b"]) <= 2 * budget
        assert min(had.values()) > 5000


async def test_parts_of_one_request_are_served_in_the_order_they_came() -> None:
    device = FakeDevice()
    async with serving(device, batch=10) as scheduler:
        tickets = [submit(scheduler, texts(f"{part}", [10, 10]), key=1) for part in "abc"]
        for ticket in tickets:
            await results_of(ticket)
    assert device.names == [["a0"], ["a1"], ["b0"], ["b1"], ["c0"], ["c1"]]


@pytest.mark.parametrize(("clients", "share"), [(1, 0.4), (4, 0.15), (20, 0.04)])
async def test_a_stream_of_singles_does_not_starve_a_bulk_request(clients: int, share: float) -> None:
    """Every client sends its next text as soon as it has an answer, so one text of each always waits.

    The fair share of the bulk request is one of ``clients + 1``; ``share`` is a little less. New requests may begin two
    micro-batches ahead, which the bulk request gets late, once, and not in every round.
    """
    device = FakeDevice(held=True)
    tickets = {}
    budget = 100
    async with serving(device, batch=budget, padding=0) as scheduler:
        submit(scheduler, texts("bulk", [50] * 2000), key=0)
        sent = 0
        for forward in range(1, 600):
            for client in range(clients):
                if client not in tickets or tickets[client].done.done():
                    sent += 1
                    tickets[client] = submit(scheduler, [(f"single{sent}", 90 + client % 10)], key=sent)
            await device.finish()
            if forward >= 100:
                had = tokens_by_request(device)
                assert had["b"] >= share * had.total() - 2 * budget
        assert had["b"] >= share * had.total()
        assert had["s"] >= (1 - 2 * share) * had.total() * 0.5  # and the other way round


@pytest.mark.parametrize("clients", [2, 8])
async def test_a_long_text_waits_at_most_twice_for_its_own_length_of_each_other_request(clients: int) -> None:
    device = FakeDevice(held=True)
    budget, length = 500, 2000
    async with serving(device, batch=budget, padding=0) as scheduler:
        for client in range(clients):
            submit(scheduler, texts(f"common{client}-", [10 + client] * 700), key=client)
        await device.finish(5)
        since = len(device.batches)
        submit(scheduler, texts("long", [length]), key=clients)
        for _ in range(2 * clients * (length // budget + 2)):  # half of the device's time is for what is late
            await device.finish()
            if ["long0"] in device.names:
                break
        assert ["long0"] in device.names
        assert tokens_by_request(device, since)["c"] <= 2 * clients * (length + 2 * budget)


async def test_a_short_list_beside_a_long_one_of_the_same_lengths_gets_half_of_the_device() -> None:
    device = FakeDevice(held=True)
    async with serving(device, batch=512, padding=16) as scheduler:
        submit(scheduler, texts("long", [10] * 2000), key=1)
        await device.finish(5)
        since = len(device.batches)
        ticket = submit(scheduler, texts("short", [10] * 100), key=2)
        while not ticket.done.done():
            await device.finish()
        had = tokens_by_request(device, since)
        assert had["l"] <= had["s"] + 2 * 512
