"""A loaded embedding model: one forward, and the requested representations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serve_app.domain.embeddings import DENSE, Encoded, Float32, Int32
from serve_app.domain.errors import NonFiniteError, ServiceError
from serve_app.domain.profiles import Capability, Pooling
from serve_app.models.batching.isolation import run_isolated
from serve_app.models.heads import TokenHeads, max_weight_per_token, pooled
from serve_app.models.openmp import wait_passively
from serve_app.models.transformer import Transformer

wait_passively()

import torch


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
        """Combines the parts.

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

    def token_vectors(self, texts: Sequence[Int32]) -> list[torch.Tensor]:
        """ColBERT vectors: float32 ``[length - 1, dimension]`` on the device for each text, L2-normalised."""
        assert self.heads is not None
        hidden = self.transformer.hidden(texts, self.adapter)
        with torch.inference_mode():
            return [self.heads.token_vectors(hidden, row) for row in range(len(texts))]

    def release_memory(self) -> None:
        """Releases cached device memory, after an out-of-memory error."""
        self.transformer.release_memory()

    @torch.inference_mode()
    def _encode_all(self, texts: Sequence[TextToEncode]) -> list[Encoded | ServiceError]:
        hidden = self.transformer.hidden([text.ids for text in texts], self.adapter)
        dense: Float32 = pooled(hidden, self.pooling).cpu().numpy()
        unnormalized: Float32 | None = None
        if any(Capability.UNNORMALIZED in text.want for text in texts):
            unnormalized = pooled(hidden, self.pooling, normalize=False).cpu().numpy()
        weights: Float32 | None = None
        if self.heads is not None and any(Capability.SPARSE in text.want for text in texts):
            weights = self.heads.token_weights(hidden).cpu().numpy()
        results: list[Encoded | ServiceError] = []
        for row, text in enumerate(texts):
            sparse = colbert = states = None
            vector = dense[row]
            if unnormalized is not None and Capability.UNNORMALIZED in text.want:
                vector = unnormalized[row]
            finite = np.isfinite(dense[row].sum()) and np.isfinite(vector.sum())
            if weights is not None and Capability.SPARSE in text.want:
                row_weights = weights[row, : len(text.ids)]
                finite &= np.isfinite(row_weights.sum())
                sparse = max_weight_per_token(text.ids, row_weights)
            if self.heads is not None and Capability.COLBERT in text.want:
                colbert = self.heads.token_vectors(hidden, row).cpu().numpy()
                finite &= np.isfinite(colbert.sum())
            if Capability.TOKEN_STATES in text.want:
                states = hidden.states[row, : len(text.ids)].float().cpu().numpy()
                finite &= np.isfinite(states.sum())
            results.append(
                Encoded(vector, sparse, colbert, states)
                if finite
                else NonFiniteError("the model computed no finite vector for this text")
            )
        return results
