"""Detection of late texts: those that wait longer than they would first come, first served.

A virtual queue serves the same tokens in the order of arrival, while the device serves them in another one. A part of a
request that has left the virtual queue but not the backlog is late. As late parts get half of the device's time, each
waits at most three times as long as it would first come, first served: once until it is late, and then for the work
that came before it, at half speed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from serve_app.models.batching.length_index import LengthIndex, Row

X = TypeVar("X")


@dataclass(eq=False)
class Part(Generic[X]):
    """Texts of one ``submit``, which are answered together.

    Attributes:
        group: Only texts of one group share a forward; None when no text waits any more, because a group may be as
            large as a model and the part may outlast it in the virtual queue.
        tokens: Service that the part takes from the virtual queue.
        is_late: It has left the virtual queue.
        waiting: Its texts in the backlog, by number: oldest first.
    """

    group: Hashable
    tokens: int
    is_late: bool = False
    waiting: dict[int, Row[X]] = field(default_factory=dict)


class ArrivalOrder(Generic[X]):
    """The virtual first-come-first-served queue, and the parts that are late."""

    def __init__(self) -> None:
        """An empty queue."""
        self._virtual: deque[Part[X]] = deque()
        self._credit = 0  # tokens served and not yet given to the first part of the virtual queue
        self._last = 0
        self._late: deque[Part[X]] = deque()
        self._late_by_length: dict[Hashable, LengthIndex[X]] = {}

    def add(self, tokens: int, group: Hashable) -> Part[X]:
        """Appends a part to the queue; the caller fills in its waiting texts."""
        part: Part[X] = Part(group, tokens)
        self._virtual.append(part)
        return part

    def leave(self, part: Part[X], row: Row[X]) -> None:
        """Removes a row that leaves the backlog to be served."""
        del part.waiting[row[1]]
        if part.is_late:
            index = self._late_by_length[part.group]
            index.remove([row])
            if not len(index):
                del self._late_by_length[part.group]
        if not part.waiting:
            part.group = None

    def discard(self, part: Part[X], row: Row[X]) -> None:
        """Removes a row that leaves the backlog unserved: later texts would not have waited for it."""
        self.leave(part, row)
        if not part.is_late:
            part.tokens -= row[0]

    def advance(self, tokens: int) -> None:
        """Serves the virtual queue as many tokens as the device has served; a part that leaves it may be late.

        The queue is one micro-batch behind, so that a device with little work may combine any texts.
        """
        self._credit += self._last
        self._last = tokens
        while self._virtual and self._virtual[0].tokens <= self._credit:
            part = self._virtual.popleft()
            self._credit -= part.tokens
            if part.waiting:
                part.is_late = True
                self._late.append(part)
                self._late_by_length.setdefault(part.group, LengthIndex()).add(list(part.waiting.values()))

    def clear(self) -> None:
        """Resets the queue; called when no text waits."""
        self._virtual.clear()
        self._late.clear()
        self._late_by_length.clear()
        self._credit = self._last = 0

    def oldest_late(self) -> Row[X] | None:
        """The earliest of all late texts; None if none is late."""
        while self._late and not self._late[0].waiting:
            self._late.popleft()
        return next(iter(self._late[0].waiting.values())) if self._late else None

    def late(self, group: Hashable) -> LengthIndex[X]:
        """All late texts of a group."""
        return self._late_by_length[group]
