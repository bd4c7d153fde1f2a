"""A loaded embedding model: one forward, and the requested representations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from serve_app.domain.embeddings import DENSE, Encoded, Float32, Int32
from serve_app.domain.errors import NonFiniteError, ServiceError
from serve_app.domain.profiles import Capability, Pooling
from serve_app.domain.ragged import Ragged
from serve_app.models.batching.isolation import run_isolated
from serve_app.models.heads import TokenHeads, max_weight_per_token, pooled
from serve_app.models.transformer import Transformer


@dataclass(frozen=True, eq=False)
class TextToEncode:
    """One text of a micro-batch.

    Attributes:
        ids: int32 ``[length]``, special tokens included.
        want: Representations beside the dense vector.
    """

    ids: Int32
    want: frozenset[Capability] = DENSE


class EmbeddingModel:
    """A model with an error for each text that fails. Not thread-safe: one caller at a time."""

    def __init__(
        self, transformer: Transformer, pooling: Pooling, heads: TokenHeads | None = None, adapter: str | None = None
    ) -> None:
        """An embedding model of loaded parts.

        Args:
            transformer: Loaded.
            pooling: How token states become the dense vector.
            heads: For sparse and ColBERT; without them those must not be requested.
            adapter: The transformer's adapter of this model; None for the base.
        """
        self.transformer = transformer
        self.pooling = pooling
        self.heads = heads
        self.adapter = adapter

    def encode(self, texts: Sequence[TextToEncode]) -> list[Encoded | ServiceError]:
        """The representations of each text, or an error, in order. Never raises."""
        return run_isolated(self._encode_all, texts, release_memory=self.transformer.release_memory)

    @torch.inference_mode()
    def token_vectors(self, texts: Sequence[Int32]) -> torch.Tensor:
        """ColBERT vectors of all tokens but the first of each text, one text after the other.

        Returns:
            float32 ``[tokens - n, dimension]`` on the device, each vector L2-normalised.
        """
        assert self.heads is not None
        return self.heads.token_vectors(self.transformer.hidden(texts, self.adapter))

    def release_memory(self) -> None:
        """Releases cached device memory, after an out-of-memory error."""
        self.transformer.release_memory()

    @torch.inference_mode()
    def _encode_all(self, texts: Sequence[TextToEncode]) -> list[Encoded | ServiceError]:
        output = self.transformer.hidden([text.ids for text in texts], self.adapter)
        n = len(texts)
        dense: Float32 = pooled(output, self.pooling).cpu().numpy()
        finite = np.isfinite(dense.sum(axis=1))
        if (asked := _asking(texts, Capability.UNNORMALIZED)).any():
            raw = pooled(output, self.pooling, normalize=False).cpu().numpy()
            dense = np.where(asked[:, None], raw, dense)
            finite &= np.isfinite(dense.sum(axis=1))
        sparse: Sequence[tuple[Int32, Float32] | None] = [None] * n
        colbert: Sequence[Float32 | None] = [None] * n
        states: Sequence[Float32 | None] = [None] * n
        if self.heads is not None and (asked := _asking(texts, Capability.SPARSE)).any():
            weights = self.heads.token_weights(output).cpu().numpy()
            finite &= ~asked | _are_finite(weights, output.lengths)
            ids = np.concatenate([text.ids for text in texts])
            rows = (ragged.rows() for ragged in max_weight_per_token(ids, weights, output.lengths))
            sparse = [row if wanted else None for row, wanted in zip(zip(*rows, strict=True), asked, strict=True)]
        if self.heads is not None and (asked := _asking(texts, Capability.COLBERT)).any():
            colbert, are_finite = _rows(self.heads.token_vectors(output, asked), output.lengths - 1, asked)
            finite &= are_finite
        if (asked := _asking(texts, Capability.TOKEN_STATES)).any():
            wanted = output.states[output.tokens_of(asked, skip_first=False)].float()
            states, are_finite = _rows(wanted, output.lengths, asked)
            finite &= are_finite
        return [
            Encoded(*parts) if is_finite else NonFiniteError("the model computed no finite vector for this text")
            for is_finite, *parts in zip(finite, dense, sparse, colbert, states, strict=True)
        ]


def _asking(texts: Sequence[TextToEncode], capability: Capability) -> NDArray[np.bool_]:
    """Bool ``[n]``, true for the texts that asked for something."""
    return np.fromiter((capability in text.want for text in texts), bool, len(texts))


def _rows(
    vectors: torch.Tensor, lengths: NDArray[np.int64], asked: NDArray[np.bool_]
) -> tuple[list[Float32 | None], NDArray[np.bool_]]:
    """The vectors of each text that asked, as views of one copy on the host, and bool ``[n]``, whether all are finite.

    Args:
        vectors: float32 ``[vectors, width]`` on the device, those of the texts that asked, in order.
        lengths: int64 ``[n]``, vectors of each text if it asked.
        asked: bool ``[n]``.
    """
    values = vectors.cpu().numpy()
    lengths = np.where(asked, lengths, 0)
    rows = Ragged(values, lengths.astype(np.int32)).rows()
    are_finite = _are_finite(values.sum(axis=1), lengths)
    return [row if wanted else None for row, wanted in zip(rows, asked, strict=True)], are_finite


def _are_finite(values: Float32, lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Bool ``[n]``: whether no value of a text is NaN or infinite; values are float32 ``[sum(lengths)]``."""
    failed = np.flatnonzero(~np.isfinite(values))
    are_finite = np.ones(len(lengths), bool)
    are_finite[np.searchsorted(np.cumsum(lengths), failed, side="right")] = False
    return are_finite
