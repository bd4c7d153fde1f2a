"""Token ids of a request's texts, as the tokenizer returns them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from serve_app.domain.embeddings import Int32, TokenBatch


@dataclass(frozen=True)
class Tokenised:
    """Token ids of a request's texts.

    Attributes:
        ids: int32 ``[sum(lengths)]``, special tokens included, each text cut to the limit.
        lengths: int32 ``[n]``.
        full_lengths: int32 ``[n]``, as ``lengths`` before the cut.
    """

    ids: Int32
    lengths: Int32
    full_lengths: Int32

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[int]], full_lengths: Int32) -> Tokenised:
        """The ids of each text, already cut, and its length before the cut."""
        lengths = np.fromiter(map(len, rows), np.int32, len(rows))
        return cls(np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum())), lengths, full_lengths)

    @classmethod
    def join(cls, parts: Sequence[Tokenised]) -> Tokenised:
        """Several as one, in order; at least one."""
        if len(parts) == 1:
            return parts[0]
        ids, lengths, full_lengths = zip(*((part.ids, part.lengths, part.full_lengths) for part in parts), strict=True)
        return cls(np.concatenate(ids), np.concatenate(lengths), np.concatenate(full_lengths))

    @property
    def truncated(self) -> list[int]:
        """Indices of the texts that were cut."""
        return [int(i) for i in np.flatnonzero(self.full_lengths > self.lengths)]

    def batch(self) -> TokenBatch:
        """The ids as a batch without owners."""
        return TokenBatch(self.ids, self.lengths)
