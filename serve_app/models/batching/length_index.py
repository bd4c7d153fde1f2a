"""Waiting texts by length, and the choice of those that share a micro-batch with little padding."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeAlias, TypeVar

X = TypeVar("X")

Row: TypeAlias = tuple[int, int, X]
"""Length in tokens, a number that no other row has and that grows with time, the text."""


class LengthIndex(Generic[X]):
    """Rows in the order of their lengths, the oldest first among equals."""

    def __init__(self) -> None:
        """An empty index."""
        self._rows: list[Row[X]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[X]:
        return (text for _, _, text in self._rows)

    def rows(self) -> list[Row[X]]:
        """A copy of all rows."""
        return list(self._rows)

    def add(self, rows: Sequence[Row[X]]) -> None:
        """Adds rows, in any order."""
        if len(rows) == 1:
            bisect.insort(self._rows, rows[0])
        else:
            self._rows.extend(rows)
            self._rows.sort()  # nearly sorted already: Python's sort merges runs

    def remove(self, rows: Sequence[Row[X]]) -> None:
        """Removes existing rows."""
        for length, number, _ in rows:
            del self._rows[bisect.bisect_left(self._rows, (length, number))]

    def near(
        self, longest: int, count: int, *, max_tokens: int, max_padding: int, admits: Callable[[X], bool]
    ) -> list[Row[X]]:
        """The rows that join a micro-batch of ``count`` texts, nearest in length first; they stay in the index.

        A row longer than the micro-batch pads all that are in it, a shorter one is padded: the cheaper joins.

        Args:
            longest: Tokens of the longest text so far.
            count: Number of texts so far.
            max_tokens: Bound of the longest text times the number of texts.
            max_padding: Padding tokens that one row may add.
            admits: Called once for each row that would join; False passes it over.
        """
        rows = self._rows
        joined: list[Row[X]] = []
        high = bisect.bisect_left(rows, (longest,))
        low = high - 1
        while True:
            longer = shorter = math.inf
            if high < len(rows) and rows[high][0] * (count + 1) <= max_tokens:
                longer = (rows[high][0] - longest) * count
            if low >= 0 and longest * (count + 1) <= max_tokens:
                shorter = longest - rows[low][0]
            if min(longer, shorter) > max_padding:
                return joined
            if longer <= shorter:
                row, high = rows[high], high + 1
            else:
                row, low = rows[low], low - 1
            if admits(row[2]):
                joined.append(row)
                longest, count = max(longest, row[0]), count + 1
