"""The minimum of many changing values: a binary heap with lazy deletion."""

from __future__ import annotations

import heapq
import itertools

_SLACK = 16  # outdated entries beyond one for each key, before the heap is built anew


class Priorities:
    """Values by key; a change costs O(log n), as does ``least``."""

    def __init__(self) -> None:
        """Starts without keys."""
        self._current: dict[int, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, int]] = []  # value, number of the key, key; some are outdated
        self._numbers = itertools.count()

    def set(self, key: int, value: float) -> None:
        """Sets the value of a key, which may be new."""
        before = self._current.get(key)
        if before is not None and before[0] == value:
            return
        number = next(self._numbers) if before is None else before[1]
        self._current[key] = value, number
        heapq.heappush(self._heap, (value, number, key))
        if len(self._heap) > 2 * len(self._current) + _SLACK:
            self._heap = [(*current, key) for key, current in self._current.items()]
            heapq.heapify(self._heap)

    def remove(self, key: int) -> None:
        """Removes a key, if it exists."""
        self._current.pop(key, None)

    def least(self) -> tuple[int, float] | None:
        """The key with the least value, and the value; among equals the key that came first; None without keys."""
        while self._heap:
            value, number, key = self._heap[0]
            if self._current.get(key) == (value, number):
                return key, value
            heapq.heappop(self._heap)
        return None
