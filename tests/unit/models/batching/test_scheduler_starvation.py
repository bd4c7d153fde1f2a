"""No text waits much longer than it would first come, first served, whatever else comes; on a simulated clock."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.models.batching.backlog import Backlog
from tests.unit.models.simulated_device import FirstComeFirstServed, Load, Part, Queue, Speed, Text, simulate

BUDGETS = [(384, 16), (16_384, 1024)]  # of a CPU and of a GPU: a micro-batch, and what one text may pad
CPU_TOKENS_PER_S = 2300
TIMES = 3
MICRO_BATCHES = 4  # beside that: the one under way, one of either kind, and the last one, which is not counted yet


def backlog(batch: int, padding: int) -> Backlog[Text]:
    return Backlog(max_batch_tokens=batch, max_padding_tokens=padding)


# ------------------------------------------------------------------ one long text among short ones


@pytest.mark.parametrize(("batch", "padding"), BUDGETS)
@pytest.mark.parametrize("clients", [1, 8, 64, 256, 2048])
def test_a_long_text_among_clients_that_send_short_ones_waits_as_long_as_they(
    clients: int, batch: int, padding: int
) -> None:
    """Each client sends its next text as soon as it has an answer, so a new request always waits."""
    keys = itertools.count(1)

    def short(now: float) -> Part:
        return Part(now, [21], next(keys), again=short)

    def wait_of_the_long(queue: Queue) -> float:
        long = Part(1.0, [400], key=0)
        parts = [*(short(0.0) for _ in range(clients)), long]
        return next(part.wait_s for part in simulate(queue, parts, speed, until_s=300) if part is long)

    speed = Speed(CPU_TOKENS_PER_S, padding)
    micro_batch_s = speed.seconds([400] * max(1, batch // 400))
    fair = wait_of_the_long(FirstComeFirstServed(batch))
    assert wait_of_the_long(backlog(batch, padding)) <= TIMES * fair + MICRO_BATCHES * micro_batch_s


# ------------------------------------------------------------------ anything among anything


@dataclass(frozen=True)
class Stream:
    """Requests like each other.

    Attributes:
        lengths: Of the texts of one part.
        count: Number of parts.
        start: When the first one comes, in micro-batches.
        load: How much of the device the stream asks for; above 1, the backlog grows.
        is_one_request: Whether all parts have one key.
        group: Only texts of one group share a forward.
    """

    lengths: list[float]
    count: int
    start: float
    load: float
    is_one_request: bool
    group: int

    def parts(self, budget: int, keys: itertools.count[int]) -> list[Part]:
        lengths = [max(1, int(length * budget)) for length in self.lengths]
        gap = sum(lengths) / self.load
        key = next(keys)
        return [
            Part(self.start * budget + i * gap, lengths, key if self.is_one_request else next(keys), self.group)
            for i in range(self.count)
        ]


LENGTHS = st.lists(st.sampled_from([0.002, 0.02, 0.05, 0.06, 0.1, 0.3, 0.5, 0.9, 1.0, 2.0]), min_size=1, max_size=12)
STREAMS = st.builds(
    Stream,
    lengths=LENGTHS,
    count=st.sampled_from([1, 3, 20, 80]),
    start=st.floats(0, 10),
    load=st.sampled_from([0.1, 0.5, 1.0, 5.0, 1000.0]),
    is_one_request=st.booleans(),
    group=st.sampled_from([0, 0, 0, 1]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(streams=st.lists(STREAMS, min_size=1, max_size=6), budget=st.sampled_from(BUDGETS))
def test_no_part_of_a_request_waits_longer_than_three_times_its_wait_in_the_order_of_arrival(
    streams: list[Stream], budget: tuple[int, int]
) -> None:
    """A text is answered with its part, so that is whose wait counts. The device serves one token in a unit of time."""
    batch, padding = budget
    speed = Speed(1.0, padding)

    def served(queue: Queue) -> list[Part]:
        keys = itertools.count()
        parts = [part for stream in streams for part in stream.parts(batch, keys)]
        assert sum(1 for _ in simulate(queue, parts, speed)) == len(parts)
        return parts

    ours, oracle = served(backlog(batch, padding)), served(FirstComeFirstServed(batch))
    longest_forward = padding + max(batch, *(max(part.lengths) for part in ours))
    for part, same in zip(ours, oracle, strict=True):
        assert part.wait_s <= TIMES * same.wait_s + MICRO_BATCHES * longest_forward


# ------------------------------------------------------------------ what it costs the others


@pytest.mark.parametrize(("batch", "padding"), BUDGETS)
def test_a_single_query_beside_lists_waits_for_a_few_micro_batches_however_late_the_lists_are(
    batch: int, padding: int
) -> None:
    """One is under way, one may be of what is late, and some of lists that are behind their share."""
    draw = random.Random(1)
    speed = Speed(CPU_TOKENS_PER_S, padding)
    waits: list[float] = []

    def query(now: float) -> Part:
        return Part(now, [20], 10**6 + len(waits), again=query)

    def piece(now: float, key: int) -> Part:
        lengths = [draw.randint(10, 100) for _ in range(8192 // 55)]
        return Part(now, lengths, key, again=lambda now: piece(now, key))

    parts = [query(0.0), *(piece(0.0, key) for key in range(4) for _ in range(4))]
    for part in simulate(backlog(batch, padding), parts, speed, until_s=500 * batch / CPU_TOKENS_PER_S):
        waits += [part.wait_s] * (len(part.lengths) == 1)
    assert len(waits) > 50
    micro_batch_s = (batch + padding) / CPU_TOKENS_PER_S
    assert sorted(waits)[len(waits) * 9 // 10] <= 3 * micro_batch_s
    assert max(waits) <= 6 * micro_batch_s


@pytest.mark.parametrize(("batch", "padding", "most"), [(384, 16, 0.1), (16_384, 1024, 0.62)])
def test_forwards_keep_little_padding_while_much_is_late(batch: int, padding: int, most: float) -> None:
    """First come, first served, padding is 0.41 and 0.82 of these forwards."""
    draw = random.Random(1)
    keys = itertools.count()

    def text(now: float) -> Part:
        return Part(now, [max(4, min(400, int(draw.lognormvariate(3.4, 0.9))))], next(keys), again=text)

    load = Load()
    texts = [text(0.0) for _ in range(256)]
    for _ in simulate(backlog(batch, padding), texts, Speed(CPU_TOKENS_PER_S, padding), load=load):
        if load.tokens > 100_000:
            break
    assert load.padding_share < most
