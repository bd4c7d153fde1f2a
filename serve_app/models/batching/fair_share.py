"""Requests with waiting texts, and the service that each has had.

Fairness between requests is weighted fair queueing (Demers, Keshav and Shenker, 1989) with tokens as
the unit of service: every request has a virtual finishing time, the earliest goes first.

Requests alternate in whole micro-batches, so most are some tokens behind their fair share or ahead of it. A new request
begins beside the one that is furthest behind; at the fair share itself, a single query would have to wait until all of
those have caught up. But not further back than some micro-batches: a stream of new requests must leave some service to
an old one. (``arrival_order`` bounds the wait of an old one.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from serve_app.models.batching.arrival_order import Part
from serve_app.models.batching.length_index import LengthIndex, Row
from serve_app.models.batching.priorities import Priorities

X = TypeVar("X")

_FURTHEST_BACK = 2  # micro-batches behind its fair share, where a new request may begin


@dataclass(eq=False)
class Waiting(Generic[X]):
    """One text in the backlog.

    Attributes:
        value: The caller's object.
        length: Tokens.
        key: Of its request.
        part: The texts that came with it.
        taken: It has left the backlog.
    """

    value: X
    length: int
    key: int
    part: Part[Waiting[X]]
    taken: bool = False


@dataclass(eq=False)
class Request(Generic[X]):
    """All waiting texts with one key, oldest first and by length, and the service that the key has had.

    Attributes:
        served: Tokens of service, counted from where the request began.
        max_texts: Texts of it in one forward, at most.
        group: Only texts of one group share a forward.
        is_new: It has had no service yet.
    """

    served: float
    max_texts: int
    group: Hashable
    is_new: bool = True
    waiting: deque[Row[Waiting[X]]] = field(default_factory=deque)
    by_length: LengthIndex[Waiting[X]] = field(default_factory=LengthIndex)

    def oldest(self) -> Row[Waiting[X]] | None:
        """The text that has waited for longest; None if none waits."""
        while self.waiting and self.waiting[0][2].taken:
            self.waiting.popleft()
        return self.waiting[0] if self.waiting else None


class FairShare(Generic[X]):
    """Weighted fair queueing between the requests that wait.

    Attributes:
        requests: By key.
        max_batch_tokens: Budget of a micro-batch, may be changed between two of them. It determines the shares, and
            how far back a new request may begin.
    """

    def __init__(self, max_batch_tokens: int) -> None:
        """Starts without requests."""
        self.requests: dict[int, Request[X]] = {}
        self.max_batch_tokens = max_batch_tokens
        self._clock = 0.0  # tokens of service that each waiting request could have had so far
        self._by_served = Priorities()  # of all requests
        self._by_finish = Priorities()  # of those with waiting texts: the virtual finishing time of the oldest
        self._without_texts: set[int] = set()

    def of(self, row: Row[Waiting[X]]) -> Request[X]:
        """The request of a text."""
        return self.requests[row[2].key]

    def request(self, key: int, *, max_texts: int, group: Hashable) -> Request[X]:
        """The request of this key; a new one begins now."""
        if (request := self.requests.get(key)) is None:
            served = self._beginning()
            request = self.requests[key] = Request(served, max_texts, group)
            self._by_served.set(key, served)
        return request

    def refresh(self, key: int) -> None:
        """Called when texts of a request have come, have left, or were served."""
        request = self.requests[key]
        row = request.oldest()
        if row is None:
            self._by_finish.remove(key)
            self._without_texts.add(key)
        else:
            self._by_finish.set(key, request.served + row[0])
            self._without_texts.discard(key)

    def next(self) -> Row[Waiting[X]] | None:
        """The oldest text of the request that would be the first to finish it; None if no text waits.

        Requests without waiting texts are removed.
        """
        for key in self._without_texts:
            del self.requests[key]
            self._by_served.remove(key)
        self._without_texts.clear()
        first = self._by_finish.least()
        return None if first is None else self.requests[first[0]].oldest()

    def share(self, request: Request[X]) -> int:
        """Tokens of the next micro-batch that are due to a request."""
        behind = max(0.0, self._clock - request.served)
        return min(self.max_batch_tokens, self.max_batch_tokens // len(self.requests) + int(behind))

    def charge(self, rows: Sequence[Row[Waiting[X]]]) -> None:
        """Counts a micro-batch as service of its requests."""
        for row in rows:
            self.of(row).served += row[0]
        for key in {row[2].key for row in rows}:
            self._by_served.set(key, self.requests[key].served)
        self._clock += sum(length for length, _, _ in rows) / len(self.requests)

    def _beginning(self) -> float:
        """The service that a new request counts as having had."""
        least = self._by_served.least()
        furthest_behind = self._clock if least is None else min(least[1], self._clock)
        return max(furthest_behind, self._clock - _FURTHEST_BACK * self.max_batch_tokens)
