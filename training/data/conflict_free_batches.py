"""Which rows may meet in a batch, where each one's passages are wrong for the others, and a partition into batches.

Two rows are rivals if the query or the positive of one occurs in the other, in any place: the passage that is right
for one would be wrong for the other. A negative that both have does no harm.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from serve_app.domain.unicode import fold

TextIds = NDArray[np.int32]

_OWN = 2  # query and positive come first in a row; negatives follow


def text_ids(columns: Iterable[Iterable[str]]) -> TextIds:
    """A number for each different text, apart from case and white space: int32 ``[rows, columns]``.

    Args:
        columns: Queries, positives, then negatives; all of one length.
    """
    numbers: dict[str, int] = {}
    found = [
        np.fromiter((numbers.setdefault(fold(text), len(numbers)) for text in texts), np.int32) for texts in columns
    ]
    return np.stack(found, axis=1)


def full_batches(ids: TextIds, size: int, *, seed: int, epoch: int = 0) -> list[list[int]]:
    """The batches of one epoch: rows by index, each row at most once, no rivals in a batch, all of ``size`` rows.

    Where many rows share a passage, some find no batch; which ones is another matter in each epoch.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(ids))
    return [batch for batch in batches(ids, size, order.tolist()) if len(batch) == size]


def most_in_a_batch(ids: TextIds, most: int) -> int:
    """How many rows, at least, can be in one batch, ``most`` being enough."""
    found = 0
    for batch in batches(ids, most, range(len(ids))):
        found = max(found, len(batch))
        if found == most:
            break
    return found


def batches(ids: TextIds, size: int, order: Iterable[int]) -> Iterator[list[int]]:
    """Puts rows together in this order, as far as they are no rivals; batches that could not be filled are short.

    A row that does not fit waits with others for the text that keeps it out, and these take their turn in the batches
    that follow. So rows with a popular passage are looked at once for each batch, not all of them for each batch.
    """
    rows = iter(order)
    waiting: OrderedDict[int, deque[int]] = OrderedDict()
    while True:
        batch = _Batch(ids)
        for _ in range(len(waiting)):
            text, queue = waiting.popitem(last=False)
            while queue and len(batch.rows) < size and (obstacle := batch.take(queue[0])) != text:
                row = queue.popleft()
                if obstacle is not None:
                    waiting.setdefault(obstacle, deque()).append(row)
            if queue:
                waiting[text] = queue  # to the end: all texts in turns
            if len(batch.rows) == size:
                break
        while len(batch.rows) < size and (fresh := next(rows, None)) is not None:
            obstacle = batch.take(fresh)
            if obstacle is not None:
                waiting.setdefault(obstacle, deque()).append(fresh)
        if not batch.rows:
            return
        yield batch.rows


class _Batch:
    """Rows that are no rivals."""

    def __init__(self, ids: TextIds) -> None:
        self.rows: list[int] = []
        self._ids = ids
        self._own: set[int] = set()
        self._all: set[int] = set()

    def take(self, row: int) -> int | None:
        """Adds a row; or the text that keeps it out."""
        texts: list[int] = self._ids[row].tolist()
        own = texts[:_OWN]
        for text in own:
            if text in self._all:
                return text
        for text in texts[_OWN:]:
            if text in self._own:
                return text
        self.rows.append(row)
        self._own.update(own)
        self._all.update(texts)
        return None
