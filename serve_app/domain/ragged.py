"""Rows of different lengths as one flat array, because one buffer crosses a process border as a single copy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ragged:
    """Several arrays that differ in their first dimension only.

    Attributes:
        values: ``[sum(lengths), ...]``, the rows one after the other.
        lengths: int32 ``[n]``; 0 is allowed.
    """

    values: NDArray[Any]
    lengths: NDArray[np.int32]

    @classmethod
    def of_rows(cls, rows: Sequence[NDArray[Any]]) -> Ragged:
        """From at least one row."""
        return cls(np.concatenate(rows), np.fromiter(map(len, rows), np.int32, len(rows)))

    @classmethod
    def join(cls, parts: Sequence[Ragged]) -> Ragged:
        """Concatenates at least one, in order."""
        return cls(np.concatenate([p.values for p in parts]), np.concatenate([p.lengths for p in parts]))

    def rows(self) -> list[NDArray[Any]]:
        """One array for each row, as views."""
        ends = np.cumsum(self.lengths).tolist()
        return [self.values[start:end] for start, end in zip([0, *ends][: len(ends)], ends, strict=True)]

    def part(self, start: int, stop: int) -> Ragged:
        """The rows ``start`` to ``stop`` (exclusive), as views."""
        before = int(self.lengths[:start].sum())
        lengths = self.lengths[start:stop]
        return Ragged(self.values[before : before + int(lengths.sum())], lengths)


def chunk_slices(sizes: Iterable[int], most: int) -> list[slice]:
    """Cuts a sequence into runs with a total size of at most ``most`` each (or one larger item)."""
    runs, start, used, stop = [], 0, 0, 0
    for stop, size in enumerate(sizes, 1):
        if stop - 1 > start and used + size > most:
            runs.append(slice(start, stop - 1))
            start, used = stop - 1, 0
        used += size
    return [*runs, slice(start, stop)] if start < stop else runs
