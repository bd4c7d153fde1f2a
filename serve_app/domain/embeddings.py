"""Values that cross process borders: frozen, flat numpy arrays, nothing else.

Flat arrays, because one contiguous buffer pickles as a single copy where a list of small arrays
costs microseconds for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class RequestShare:
    """A run of neighbouring texts in a ``TokenBatch`` that belong to one client request.

    Attributes:
        key: The same for all shares of a request, so that scheduling can be fair between requests.
        count: Number of texts.
        timeout_s: Seconds until nobody waits for the answer any more.
    """

    key: int
    count: int
    timeout_s: float


@dataclass(frozen=True)
class TokenBatch:
    """Token ids of several texts, special tokens included.

    Attributes:
        ids: int32 ``[sum(lengths)]``, the texts one after the other.
        lengths: int32 ``[n]``, tokens of each text, every one at least 1.
        shares: Who asked; their counts add up to ``n``.
    """

    ids: Int32
    lengths: Int32
    shares: tuple[RequestShare, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens in all texts together."""
        return len(self.ids)

    def rows(self) -> list[Int32]:
        """One int32 array of ids for each text, as views."""
        ends = np.cumsum(self.lengths).tolist()
        return [self.ids[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)] if ends else []

    @classmethod
    def of_rows(cls, rows: Sequence[Int32]) -> TokenBatch:
        """A batch of at least one text, from its ids."""
        return cls(np.concatenate(rows), np.fromiter(map(len, rows), np.int32, len(rows)))

    @classmethod
    def join(cls, batches: Sequence[TokenBatch]) -> TokenBatch:
        """Several batches as one, in order."""
        return cls(
            ids=np.concatenate([b.ids for b in batches]),
            lengths=np.concatenate([b.lengths for b in batches]),
            shares=tuple(share for b in batches for share in b.shares),
        )

    def slices(self, max_tokens: int) -> list[slice]:
        """Cuts into runs of texts of at most ``max_tokens`` tokens each (or one longer text)."""
        cuts, start, used = [], 0, 0
        for i, length in enumerate(self.lengths.tolist()):
            if i > start and used + length > max_tokens:
                cuts.append(slice(start, i))
                start, used = i, 0
            used += length
        if start < len(self.lengths):
            cuts.append(slice(start, len(self.lengths)))
        return cuts


@dataclass(frozen=True)
class ItemFailure:
    """Why one text has no vector; ``code`` names a class of ``domain.errors``."""

    index: int
    code: str
    message: str
    retry_after_s: float | None = None


@dataclass(frozen=True)
class DenseBatch:
    """The encoder's answer to a ``TokenBatch``.

    Attributes:
        vectors: float32 ``[n, dimension]``, L2-normalised, in the order of the texts; a row whose
            index is in ``failures`` is zero.
        failures: One entry for each text that failed.
    """

    vectors: Float32
    failures: tuple[ItemFailure, ...] = ()

    def part(self, start: int, stop: int) -> DenseBatch:
        """The rows ``start`` to ``stop`` (exclusive), failures renumbered."""
        inside = tuple(
            ItemFailure(f.index - start, f.code, f.message, f.retry_after_s)
            for f in self.failures
            if start <= f.index < stop
        )
        return DenseBatch(self.vectors[start:stop], inside)

    @classmethod
    def join(cls, parts: Sequence[DenseBatch]) -> DenseBatch:
        """Several answers as one, in order, failures renumbered."""
        if len(parts) == 1:
            return parts[0]
        failures: list[ItemFailure] = []
        offset = 0
        for part in parts:
            failures += [ItemFailure(f.index + offset, f.code, f.message, f.retry_after_s) for f in part.failures]
            offset += len(part.vectors)
        return cls(np.concatenate([p.vectors for p in parts]), tuple(failures))
