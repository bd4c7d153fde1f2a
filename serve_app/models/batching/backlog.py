"""The waiting texts of a device, and the choice of the next micro-batch: fair between requests, without starvation.

Two kinds of micro-batches alternate. A fair one takes the text whose request has had the least service so far; so a
single query beside lists of thousands waits for two or three micro-batches. A late one takes what has waited longer
than it would first come, first served; so nothing starves, however many new requests come. Late ones get half of the
device's time while there is anything late, and the other half is shared as if they did not exist: they do not
count as service of their requests. Both are filled with texts near in length.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

from serve_app.models.batching.arrival_order import ArrivalOrder
from serve_app.models.batching.fair_share import FairShare, Request, Waiting
from serve_app.models.batching.length_index import LengthIndex, Row

X = TypeVar("X")


class Backlog(Generic[X]):
    """The waiting texts of one device.

    Attributes:
        tokens: Of all texts that wait.
    """

    def __init__(self, *, max_batch_tokens: int, max_padding_tokens: int) -> None:
        """Sets the bounds of a micro-batch; see ``Scheduler``."""
        self._max_padding_tokens = max_padding_tokens
        self._shares: FairShare[X] = FairShare(max_batch_tokens)
        self._order: ArrivalOrder[Waiting[X]] = ArrivalOrder()
        self._by_length: dict[Hashable, LengthIndex[Waiting[X]]] = {}
        self._new_by_length: dict[Hashable, LengthIndex[Waiting[X]]] = {}  # of requests without service so far
        self._owed_to_late = 0  # device time, in tokens, that fair micro-batches have had and late ones have not
        self._numbers = itertools.count()
        self.tokens = 0

    @property
    def max_batch_tokens(self) -> int:
        """Budget of a micro-batch; may be changed between two of them."""
        return self._shares.max_batch_tokens

    @max_batch_tokens.setter
    def max_batch_tokens(self, tokens: int) -> None:
        self._shares.max_batch_tokens = tokens

    def __len__(self) -> int:
        return sum(map(len, self._by_length.values()))

    def __iter__(self) -> Iterator[X]:
        return (text.value for index in self._by_length.values() for text in index)

    def add(self, values: Sequence[X], lengths: Sequence[int], *, key: int, max_texts: int, group: Hashable) -> None:
        """Adds texts of a request; all parts of a request have the same key, ``max_texts`` and ``group``."""
        request = self._shares.request(key, max_texts=max_texts, group=group)
        part = self._order.add(sum(lengths), request.group)
        rows = [
            (length, next(self._numbers), Waiting(value, length, key, part))
            for value, length in zip(values, lengths, strict=True)
        ]
        part.waiting.update((row[1], row) for row in rows)
        request.waiting.extend(rows)
        request.by_length.add(rows)
        self._shares.refresh(key)
        self._by_length.setdefault(request.group, LengthIndex()).add(rows)
        if request.is_new:
            self._new_by_length.setdefault(request.group, LengthIndex()).add(rows)
        self.tokens += part.tokens

    def discard(self, key: int, unwanted: Callable[[X], bool]) -> None:
        """Removes the waiting texts of a request that are not needed any more."""
        request = self._shares.requests.get(key)
        if request is None:
            return
        gone = [row for row in request.waiting if not row[2].taken and unwanted(row[2].value)]
        if gone:
            self._remove(request, gone)
            for row in gone:
                row[2].taken = True
                self._order.discard(row[2].part, row)
            self._shares.refresh(key)
            self._reset_if_empty()

    def take(self) -> list[X]:
        """Removes the next micro-batch, in the order of lengths; empty if no text waits."""
        late = self._order.oldest_late()
        if late is not None and self._owed_to_late >= 0:
            rows = self._late_batch(late)
            self._owed_to_late -= self._cost(rows)
        elif (anchor := self._shares.next()) is not None:
            rows = self._fair_batch(anchor)
            self._shares.charge(rows)
            self._owed_to_late += self._cost(rows)
        else:
            return []
        rows.sort()
        self._leave(rows)
        if self._order.oldest_late() is None:
            self._owed_to_late = min(self._owed_to_late, 0)
        return [text.value for _, _, text in rows]

    # ------------------------------------------------------------------ which texts

    def _late_batch(self, anchor: Row[Waiting[X]]) -> list[Row[Waiting[X]]]:
        """A late text with the late texts nearest in length; others would delay those that are late already."""
        rows, admits = self._begin(anchor)
        self._join(rows, self._order.late(self._shares.of(anchor).group), admits)
        return rows

    def _fair_batch(self, anchor: Row[Waiting[X]]) -> list[Row[Waiting[X]]]:
        """A text with its request's fair share of the micro-batch, and then the waiting texts nearest in length.

        Neighbours in length come mostly from the largest request. Without a share of its own a short list beside a long
        one would be served one text at a time; and so would single queries beside lists, if texts of requests without
        service so far did not come first.
        """
        rows, admits = self._begin(anchor)
        request = self._shares.of(anchor)
        self._join(rows, request.by_length, admits, max_tokens=min(self.max_batch_tokens, self._shares.share(request)))
        if request.group in self._new_by_length:
            self._join(rows, self._new_by_length[request.group], admits, max_padding=self._max_padding_tokens // 2)
        self._join(rows, self._by_length[request.group], admits)
        return rows

    def _begin(self, anchor: Row[Waiting[X]]) -> tuple[list[Row[Waiting[X]]], Callable[[Waiting[X]], bool]]:
        """A micro-batch of one text, and a filter for others: none twice, and no more of a request than it allows."""
        counts = Counter({anchor[2].key: 1})
        anchor[2].taken = True

        def admits(text: Waiting[X]) -> bool:
            if text.taken or counts[text.key] >= self._shares.requests[text.key].max_texts:
                return False
            text.taken = True
            counts[text.key] += 1
            return True

        return [anchor], admits

    def _join(
        self,
        rows: list[Row[Waiting[X]]],
        index: LengthIndex[Waiting[X]],
        admits: Callable[[Waiting[X]], bool],
        *,
        max_tokens: int | None = None,
        max_padding: int | None = None,
    ) -> None:
        rows += index.near(
            max(length for length, _, _ in rows),
            len(rows),
            max_tokens=self.max_batch_tokens if max_tokens is None else max_tokens,
            max_padding=self._max_padding_tokens if max_padding is None else max_padding,
            admits=admits,
        )

    def _cost(self, rows: Sequence[Row[Waiting[X]]]) -> int:
        """Device time of a micro-batch, in tokens: padded tokens, and the fixed cost of a forward."""
        return max(length for length, _, _ in rows) * len(rows) + self._max_padding_tokens

    # ------------------------------------------------------------------ accounting

    def _leave(self, rows: Sequence[Row[Waiting[X]]]) -> None:
        """Takes the texts of a micro-batch out of the backlog and accounts for them."""
        for row in rows:
            request = self._shares.of(row)
            if request.is_new:
                _remove_from(self._new_by_length, request.group, request.by_length.rows())
                request.is_new = False
            self._remove(request, [row])
            self._order.leave(row[2].part, row)
        for key in {row[2].key for row in rows}:
            self._shares.refresh(key)
        self._order.advance(sum(length for length, _, _ in rows))
        self._reset_if_empty()

    def _reset_if_empty(self) -> None:
        if not self._by_length:
            self._order.clear()

    def _remove(self, request: Request[X], rows: Sequence[Row[Waiting[X]]]) -> None:
        request.by_length.remove(rows)
        _remove_from(self._by_length, request.group, rows)
        if request.is_new:
            _remove_from(self._new_by_length, request.group, rows)
        self.tokens -= sum(length for length, _, _ in rows)


def _remove_from(
    indices: dict[Hashable, LengthIndex[Waiting[X]]], group: Hashable, rows: Sequence[Row[Waiting[X]]]
) -> None:
    index = indices[group]
    index.remove(rows)
    if not len(index):
        del indices[group]
