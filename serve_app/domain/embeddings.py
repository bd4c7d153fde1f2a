"""Values that cross process borders: frozen, flat numpy arrays, nothing else.

Flat arrays, because one contiguous buffer pickles as a single copy where a list of small arrays
costs microseconds for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from serve_app.domain.errors import InvalidInputError, NonFiniteError, OutOfMemoryError, ServiceError, error_of
from serve_app.domain.profiles import Capability
from serve_app.domain.ragged import Ragged, chunk_slices

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]

DENSE = frozenset({Capability.DENSE})
_FAULTS_OF_A_TEXT = frozenset({InvalidInputError.code, NonFiniteError.code, OutOfMemoryError.code})


@dataclass(frozen=True)
class ModelVersion:
    """A fine-tune that computes beside its base.

    Attributes:
        name: The name it is served by.
        version: Distinguishes it from an earlier fine-tune of the same name.
    """

    name: str
    version: str


@dataclass(frozen=True)
class RequestShare:
    """A run of neighbouring texts in a ``TokenBatch`` that belong to one client request.

    Attributes:
        key: The same for all shares of a request, so that scheduling can be fair between requests.
        count: Number of texts.
        timeout_s: Seconds until the request times out.
        want: Requested representations; dense vectors are always included.
    """

    key: int
    count: int
    timeout_s: float
    want: frozenset[Capability] = DENSE


@dataclass(frozen=True)
class TokenBatch:
    """Token ids of several texts, special tokens included.

    Attributes:
        ids: int32 ``[sum(lengths)]``, the texts one after the other.
        lengths: int32 ``[n]``, tokens of each text, every one at least 1.
        shares: Requests of the texts; their counts add up to ``n``.
        model_version: The fine-tune that computes; None for the deployment's own model.
    """

    ids: Int32
    lengths: Int32
    shares: tuple[RequestShare, ...] = ()
    model_version: ModelVersion | None = None

    @property
    def tokens(self) -> int:
        """Tokens in all texts together."""
        return len(self.ids)

    def rows(self) -> list[Int32]:
        """One int32 array of ids for each text, as views."""
        ends = np.cumsum(self.lengths).tolist()
        return [self.ids[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)] if ends else []

    @classmethod
    def of_rows(
        cls, rows: Sequence[Int32], shares: tuple[RequestShare, ...] = (), model_version: ModelVersion | None = None
    ) -> TokenBatch:
        """A batch of at least one text, from its ids."""
        return cls(np.concatenate(rows), np.fromiter(map(len, rows), np.int32, len(rows)), shares, model_version)

    @classmethod
    def join(cls, batches: Sequence[TokenBatch]) -> TokenBatch:
        """Several batches of one model version as one, in order."""
        return cls(
            ids=np.concatenate([b.ids for b in batches]),
            lengths=np.concatenate([b.lengths for b in batches]),
            shares=tuple(share for b in batches for share in b.shares),
            model_version=batches[0].model_version,
        )

    def slices(self, max_tokens: int) -> list[slice]:
        """Cuts into runs of texts of at most ``max_tokens`` tokens each (or one longer text)."""
        return chunk_slices(self.lengths.tolist(), max_tokens)


@dataclass(frozen=True)
class ItemFailure:
    """The error of one text; ``code`` names a class of ``domain.errors``."""

    index: int
    code: str
    message: str
    retry_after_s: float | None = None

    @classmethod
    def of(cls, index: int, error: ServiceError) -> ItemFailure:
        """An error as it is sent to another process."""
        return cls(index, error.code, error.message, error.retry_after_s)

    def error(self) -> ServiceError:
        """The original error; it names the text only if the text caused it, rather than the queue or the deadline."""
        item = self.index if self.code in _FAULTS_OF_A_TEXT else None
        return error_of(self.code, self.message, retry_after_s=self.retry_after_s, item=item)


@dataclass(frozen=True)
class Encoded:
    """The requested representations of one text.

    Attributes:
        dense: float32 ``[dimension]``, L2-normalised unless ``UNNORMALIZED`` was requested.
        sparse: int32 ``[k]`` distinct token ids and float32 ``[k]`` their weights, all above 0.
        colbert: float32 ``[tokens - 1, dimension]``, each row L2-normalised; the first token has none.
        states: float32 ``[tokens, dimension]``, the hidden state of each token.
    """

    dense: Float32
    sparse: tuple[Int32, Float32] | None = None
    colbert: Float32 | None = None
    states: Float32 | None = None


@dataclass(frozen=True)
class EncodedBatch:
    """The encoder's answer to a ``TokenBatch``; a text that failed, or did not request one, has zeros or an empty row.

    Attributes:
        dense: float32 ``[n, dimension]`` in the order of the texts, L2-normalised except for texts that requested
            ``UNNORMALIZED``.
        failures: One entry for each text that failed.
        sparse_ids: int32 rows of distinct token ids; None if no text requested it.
        sparse_weights: float32 rows, as long as those of the ids.
        colbert: float32 rows ``[tokens - 1, dimension]``; None if no text requested it.
        states: float32 rows ``[tokens, dimension]``; None if no text requested it.
    """

    dense: Float32
    failures: tuple[ItemFailure, ...] = ()
    sparse_ids: Ragged | None = None
    sparse_weights: Ragged | None = None
    colbert: Ragged | None = None
    states: Ragged | None = None

    def part(self, start: int, stop: int) -> EncodedBatch:
        """The rows ``start`` to ``stop`` (exclusive), failures renumbered."""
        inside = tuple(replace(f, index=f.index - start) for f in self.failures if start <= f.index < stop)
        return EncodedBatch(
            self.dense[start:stop],
            inside,
            *(
                ragged and ragged.part(start, stop)
                for ragged in (self.sparse_ids, self.sparse_weights, self.colbert, self.states)
            ),
        )

    @classmethod
    def of_texts(
        cls, results: Sequence[Encoded | ServiceError], want: frozenset[Capability], dimension: int
    ) -> EncodedBatch:
        """From one result for each text.

        Args:
            results: At least one.
            want: Representations requested by any of the texts.
            dimension: Dimension of the vectors if all texts failed; a fine-tune's may differ from its host's.
        """
        failures = tuple(ItemFailure.of(i, r) for i, r in enumerate(results) if isinstance(r, ServiceError))
        dimension = next((len(r.dense) for r in results if isinstance(r, Encoded)), dimension)
        nothing = Encoded(np.zeros(dimension, np.float32))
        texts = [nothing if isinstance(r, ServiceError) else r for r in results]
        sparse_ids = sparse_weights = colbert = states = None
        if Capability.SPARSE in want:
            none = (np.empty(0, np.int32), np.empty(0, np.float32))
            sparse_ids = Ragged.of_rows([(text.sparse or none)[0] for text in texts])
            sparse_weights = Ragged.of_rows([(text.sparse or none)[1] for text in texts])
        if Capability.COLBERT in want:
            colbert = _rows([text.colbert for text in texts], dimension)
        if Capability.TOKEN_STATES in want:
            states = _rows([text.states for text in texts], dimension)
        return cls(np.stack([text.dense for text in texts]), failures, sparse_ids, sparse_weights, colbert, states)

    @classmethod
    def join(cls, parts: Sequence[EncodedBatch]) -> EncodedBatch:
        """Several answers to parts of one request as one, in order, failures renumbered."""
        if len(parts) == 1:
            return parts[0]
        failures: list[ItemFailure] = []
        offset = 0
        for part in parts:
            failures += [replace(f, index=f.index + offset) for f in part.failures]
            offset += len(part.dense)
        return cls(
            np.concatenate([p.dense for p in parts]),
            tuple(failures),
            _joined([p.sparse_ids for p in parts]),
            _joined([p.sparse_weights for p in parts]),
            _joined([p.colbert for p in parts]),
            _joined([p.states for p in parts]),
        )


def _rows(matrices: Sequence[Float32 | None], dimension: int) -> Ragged:
    """Matrices of one width, one for each text; a text without one has no rows."""
    given = [matrix for matrix in matrices if matrix is not None]
    empty = given[0][:0] if given else np.empty((0, dimension), np.float32)
    return Ragged.of_rows([empty if matrix is None else matrix for matrix in matrices])


def _joined(parts: Sequence[Ragged | None]) -> Ragged | None:
    return Ragged.join([p for p in parts if p is not None]) if all(p is not None for p in parts) else None
