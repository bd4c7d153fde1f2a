"""Token states to dense, sparse and ColBERT representations.

The maths is that of ``BAAI/bge-m3`` (Chen et al., 2024) and its reference implementation in FlagEmbedding;
the two linear layers beside the model are BGE-M3's own. All of it is computed in float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from serve_app.domain.embeddings import Float32, Int32
from serve_app.domain.profiles import Pooling
from serve_app.domain.ragged import Ragged
from serve_app.models.backbone.encoder_output import EncoderOutput
from serve_app.models.head_files import read_heads


def pooled(output: EncoderOutput, pooling: Pooling, *, normalize: bool = True) -> torch.Tensor:
    """Dense vectors, float32 ``[n, hidden]`` on the device, L2-normalised if ``normalize``."""
    if pooling is Pooling.CLS:
        vectors = output.states[output.firsts].float()
    else:
        states = output.states.float()
        sums = states.new_zeros(len(output.lengths), states.shape[1]).index_add_(0, output.segments, states)
        vectors = sums / output.counts[:, None]
    return functional.normalize(vectors, dim=-1) if normalize else vectors


class TokenHeads:
    """BGE-M3's two linear layers over the token states."""

    def __init__(self, sparse: torch.nn.Linear, colbert: torch.nn.Linear) -> None:
        """Takes the layers, float32 and on the model's device."""
        self.sparse = sparse
        self.colbert = colbert

    @property
    def hidden_size(self) -> int:
        """Width of the states that the heads read."""
        return self.sparse.in_features

    @classmethod
    def load(cls, folder: Path, hidden_size: int, device: torch.device) -> TokenHeads:
        """Reads the heads of a folder for serving, without gradients; see ``read_heads``.

        Raises:
            ModelLoadError: A file is missing, damaged, or does not fit the model.
        """
        sparse, colbert = (layer.to(device).eval().requires_grad_(False) for layer in read_heads(folder, hidden_size))
        return cls(sparse, colbert)

    def token_weights(self, output: EncoderOutput) -> torch.Tensor:
        """Sparse weight of every token, float32 ``[tokens]`` on the device, 0 or more."""
        return functional.relu(self.sparse(output.states.float())).squeeze(-1)

    def token_vectors(self, output: EncoderOutput, texts: NDArray[np.bool_] | None = None) -> torch.Tensor:
        """ColBERT vectors of all tokens but the first of each text, float32 ``[tokens - n, dimension]`` on the device.

        Args:
            output: Of the model.
            texts: bool ``[n]``, the texts that are meant; None for all.

        Returns:
            The vectors of the texts one after the other, each vector L2-normalised.
        """
        texts = np.ones(len(output.lengths), bool) if texts is None else texts
        states = output.states[output.tokens_of(texts, skip_first=True)].float()
        return functional.normalize(self.colbert(states), dim=-1)


def max_weight_per_token(ids: Int32, weights: Float32, lengths: NDArray[np.int64]) -> tuple[Ragged, Ragged]:
    """Distinct token ids of each text, and the largest weight of each; tokens without weight are left out.

    One sort for all texts together.

    Args:
        ids: int32 ``[tokens]``, the texts one after the other.
        weights: float32 ``[tokens]``.
        lengths: int64 ``[n]``, tokens of each text.

    Returns:
        int32 rows of ascending ids, and float32 rows of their weights.
    """
    text = np.repeat(np.arange(len(lengths)), lengths)
    keys = text * (np.int64(ids.max()) + 1) + ids
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    largest = np.maximum.reduceat(weights[order], starts)
    kept = largest > 0
    places = order[starts[kept]]
    counts = np.bincount(text[places], minlength=len(lengths)).astype(np.int32)
    return Ragged(ids[places], counts), Ragged(largest[kept], counts)
