"""Texts that wait for a device: which of them go next, together and fairly.

Fairness between requests is weighted fair queueing (Demers, Keshav and Shenker, 1989) with tokens as
the unit of service: every request has a virtual finishing time, the earliest goes first.

Requests take turns in whole micro-batches, so most are some tokens behind their fair share or before it. A new request
begins beside the one that is furthest behind; at the fair share itself, a single query would have to wait until all of
those have caught up. But not further back than some micro-batches: a stream of new requests must not starve an old one.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from serve_app.models.lengths import LengthIndex, Row

X = TypeVar("X")

_FURTHEST_BACK = 2  # micro-batches behind its fair share, where a new request may begin


@dataclass(eq=False)
class Waiting(Generic[X]):
    """One text in the backlog.

    Attributes:
        value: Whatever its owner wants back.
        length: Tokens.
        key: Names its request.
        taken: It has left the backlog.
    """

    value: X
    length: int
    key: int
    taken: bool = False


@dataclass(eq=False)
class _Request(Generic[X]):
    """All waiting texts with one key, oldest first and by length, and the service that the key has had."""

    served: float
    max_texts: int
    group: Hashable
    waiting: deque[Row[Waiting[X]]] = field(default_factory=deque)
    by_length: LengthIndex[Waiting[X]] = field(default_factory=LengthIndex)

    def oldest(self) -> Row[Waiting[X]] | None:
        while self.waiting and self.waiting[0][2].taken:
            self.waiting.popleft()
        return self.waiting[0] if self.waiting else None


class Backlog(Generic[X]):
    """The waiting texts of one device.

    Attributes:
        tokens: Of all texts that wait.
    """

    def __init__(self, *, max_batch_tokens: int, max_padding_tokens: int) -> None:
        """Sets the bounds of a micro-batch; see ``Scheduler``."""
        self._max_batch_tokens = max_batch_tokens
        self._max_padding_tokens = max_padding_tokens
        self._requests: dict[int, _Request[X]] = {}
        self._by_length: dict[Hashable, LengthIndex[Waiting[X]]] = {}
        self._numbers = itertools.count()
        self._clock = 0.0  # tokens of service that each waiting request could have had so far
        self.tokens = 0

    def __len__(self) -> int:
        return sum(map(len, self._by_length.values()))

    def __iter__(self) -> Iterator[X]:
        return (text.value for index in self._by_length.values() for text in index)

    def add(self, values: Sequence[X], lengths: Sequence[int], *, key: int, max_texts: int, group: Hashable) -> None:
        """Adds texts of a request; what all parts of a request must say alike is in ``Scheduler.submit``."""
        rows = [
            (length, next(self._numbers), Waiting(value, length, key))
            for value, length in zip(values, lengths, strict=True)
        ]
        if (request := self._requests.get(key)) is None:
            request = self._requests[key] = _Request(self._beginning(), max_texts, group)
        request.waiting.extend(rows)
        request.by_length.add(rows)
        self._by_length.setdefault(request.group, LengthIndex()).add(rows)
        self.tokens += sum(lengths)

    def discard(self, key: int, unwanted: Callable[[X], bool]) -> None:
        """Removes those texts of a request that still wait and that nobody wants any more."""
        request = self._requests.get(key)
        if request is None:
            return
        gone = [row for row in request.waiting if not row[2].taken and unwanted(row[2].value)]
        if gone:
            self._remove(request.group, gone)
            request.by_length.remove(gone)
            self.tokens -= sum(length for length, _, _ in gone)
            for _, _, text in gone:
                text.taken = True

    def take(self) -> list[X]:
        """Removes the next micro-batch, in the order of lengths; empty if nothing waits.

        The text whose request has had the least service so far goes, with it this request's fair share of the
        micro-batch, and then the waiting texts nearest in length.

        Neighbours in length come mostly from the largest request; without a share of its own a short list
        beside a long one would get its turn for one text at a time.
        """
        anchor = self._next_anchor()
        if anchor is None:
            return []
        rows, counts = [anchor], Counter({anchor[2].key: 1})
        anchor[2].taken = True

        def admits(text: Waiting[X]) -> bool:
            key = text.key
            if text.taken or counts[key] >= self._requests[key].max_texts:
                return False
            text.taken = True
            counts[key] += 1
            return True

        request = self._requests[anchor[2].key]
        behind = max(0.0, self._clock - request.served)
        share = min(self._max_batch_tokens, self._max_batch_tokens // len(self._requests) + int(behind))
        for index, max_tokens in (
            (request.by_length, share),
            (self._by_length[request.group], self._max_batch_tokens),
        ):
            rows += index.near(
                max(length for length, _, _ in rows),
                len(rows),
                max_tokens=max_tokens,
                max_padding=self._max_padding_tokens,
                admits=admits,
            )
        rows.sort()
        self._remove(request.group, rows)
        for row in rows:
            self._requests[row[2].key].by_length.remove([row])
        self._charge([text for _, _, text in rows])
        return [text.value for _, _, text in rows]

    def _beginning(self) -> float:
        """The service that a new request counts as having had."""
        least = min((request.served for request in self._requests.values()), default=self._clock)
        return max(min(least, self._clock), self._clock - _FURTHEST_BACK * self._max_batch_tokens)

    def _next_anchor(self) -> Row[Waiting[X]] | None:
        best: tuple[float, Row[Waiting[X]]] | None = None
        for key, request in list(self._requests.items()):
            row = request.oldest()
            if row is None:
                del self._requests[key]
                continue
            finish = request.served + row[0]
            if best is None or finish < best[0]:
                best = (finish, row)
        return best[1] if best else None

    def _remove(self, group: Hashable, rows: Sequence[Row[Waiting[X]]]) -> None:
        index = self._by_length[group]
        index.remove(rows)
        if not len(index):
            del self._by_length[group]

    def _charge(self, batch: Sequence[Waiting[X]]) -> None:
        tokens = 0
        for text in batch:
            tokens += text.length
            self._requests[text.key].served += text.length
        self.tokens -= tokens
        self._clock += tokens / len(self._requests)
