"""A device whose forwards take computed seconds on a simulated clock, and the oracle that serves first come first."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(eq=False)
class Part:
    """Texts that one client sends together and that are answered together.

    Attributes:
        arrives: Seconds on the simulated clock.
        lengths: Tokens of each text.
        key: Names the request.
        again: Makes the client's next part from the moment of the answer; None where the client then leaves.
        answered: When the last text was computed; None while one waits.
    """

    arrives: float
    lengths: Sequence[int]
    key: int
    group: Hashable = None
    again: Callable[[float], Part] | None = None
    answered: float | None = None
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        self.missing = len(self.lengths)

    @property
    def wait_s(self) -> float:
        assert self.answered is not None
        return self.answered - self.arrives


Text = tuple[Part, int]  # its length in tokens


class Queue(Protocol):
    """What chooses the micro-batches: a ``Backlog``, or the oracle."""

    def add(
        self, values: Sequence[Text], lengths: Sequence[int], *, key: int, max_texts: int, group: Hashable
    ) -> object: ...
    def take(self) -> Sequence[Text]: ...


class FirstComeFirstServed:
    """Texts in the order of their arrival, as many in a forward as fit the budget: slow, and easy to believe."""

    def __init__(self, max_batch_tokens: int) -> None:
        self._max_batch_tokens = max_batch_tokens
        self._waiting: deque[Text] = deque()

    def add(self, values: Sequence[Text], lengths: Sequence[int], *, key: int, max_texts: int, group: Hashable) -> None:
        self._waiting.extend(values)

    def take(self) -> Sequence[Text]:
        batch: list[Text] = []
        while self._waiting:
            part, length = self._waiting[0]
            longest = max(length, *(n for _, n in batch)) if batch else length
            if batch and (longest * (len(batch) + 1) > self._max_batch_tokens or part.group != batch[0][0].group):
                break
            batch.append(self._waiting.popleft())
        return batch


@dataclass
class Load:
    """What a simulation counted."""

    forwards: int = 0
    tokens: int = 0
    padded_tokens: int = 0

    @property
    def padding_share(self) -> float:
        return 1 - self.tokens / self.padded_tokens


@dataclass(frozen=True)
class Speed:
    """How long a forward takes: so many padded tokens a second, and a fixed cost, in tokens, before the first."""

    tokens_per_s: float
    fixed_tokens: int

    def seconds(self, lengths: Sequence[int]) -> float:
        return (self.fixed_tokens + max(lengths) * len(lengths)) / self.tokens_per_s


def simulate(
    queue: Queue, parts: Iterable[Part], speed: Speed, *, until_s: float = float("inf"), load: Load | None = None
) -> Iterator[Part]:
    """Yields each part when it is answered; ends when nothing is left, or at ``until_s``."""
    load = load or Load()
    numbers = itertools.count()
    arrivals = [(part.arrives, next(numbers), part) for part in parts]
    heapq.heapify(arrivals)
    now = 0.0
    while now < until_s:
        while arrivals and arrivals[0][0] <= now:
            part = heapq.heappop(arrivals)[2]
            texts = [(part, length) for length in part.lengths]
            queue.add(texts, part.lengths, key=part.key, max_texts=10**9, group=part.group)
        batch = queue.take()
        if not batch:
            if not arrivals:
                return
            now = arrivals[0][0]
            continue
        lengths = [length for _, length in batch]
        load.forwards += 1
        load.tokens += sum(lengths)
        load.padded_tokens += max(lengths) * len(lengths)
        now += speed.seconds(lengths)
        for part, _ in batch:
            part.missing -= 1
            if part.missing == 0:
                part.answered = now
                yield part
                if part.again is not None:
                    follower = part.again(now)
                    heapq.heappush(arrivals, (follower.arrives, next(numbers), follower))
