"""A partition of training rows into batches without false negatives.

In a batch the passages of each row are negatives for the others. Two rows conflict if the query or the positive of one
occurs anywhere in the other: the passage that is right for one would be a false negative of the other. A negative that
both have does no harm.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from serve_app.domain.unicode import fold

TextIds = NDArray[np.int32]

_OWN = 2  # query and positive, the first columns of a row; negatives follow


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
    """The batches of one epoch: rows by index, each row at most once, no conflicts in a batch, all of ``size`` rows.

    Where many rows share a passage, some are in no batch; in each epoch others.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(ids))
    return [batch for batch in batches(ids, size, order.tolist()) if len(batch) == size]


def largest_batch(ids: TextIds, limit: int) -> int:
    """A lower bound of the rows that one batch can hold, up to ``limit``."""
    found = 0
    for batch in batches(ids, limit, range(len(ids))):
        found = max(found, len(batch))
        if found == limit:
            break
    return found


def batches(ids: TextIds, size: int, order: Iterable[int]) -> Iterator[list[int]]:
    """Groups rows in this order as far as they do not conflict; batches that cannot be filled are short.

    A row that conflicts waits in a queue of the text it conflicts on; the queues are served in rotation by the batches
    that follow. So of the rows with a popular passage one is examined for each batch, not all of them.
    """
    rows = iter(order)
    waiting: OrderedDict[int, deque[int]] = OrderedDict()
    while True:
        batch = _Batch(ids)
        for _ in range(len(waiting)):
            text, queue = waiting.popitem(last=False)
            while queue and len(batch.rows) < size and (conflict := batch.take(queue[0])) != text:
                row = queue.popleft()
                if conflict is not None:
                    waiting.setdefault(conflict, deque()).append(row)
            if queue:
                waiting[text] = queue  # to the end: all texts in rotation
            if len(batch.rows) == size:
                break
        while len(batch.rows) < size and (fresh := next(rows, None)) is not None:
            conflict = batch.take(fresh)
            if conflict is not None:
                waiting.setdefault(conflict, deque()).append(fresh)
        if not batch.rows:
            return
        yield batch.rows


class _Batch:
    """Rows without conflicts."""

    def __init__(self, ids: TextIds) -> None:
        self.rows: list[int] = []
        self._ids = ids
        self._own: set[int] = set()
        self._all: set[int] = set()

    def take(self, row: int) -> int | None:
        """Adds a row, or returns the text it conflicts on."""
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
