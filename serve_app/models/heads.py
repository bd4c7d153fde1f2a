"""Hidden states to dense, sparse and ColBERT representations.

The maths is that of ``BAAI/bge-m3`` (Chen et al., 2024) and its reference implementation in FlagEmbedding;
the two linear layers beside the model are BGE-M3's own. All of it is computed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serve_app.domain.embeddings import Float32, Int32
from serve_app.domain.profiles import Pooling
from serve_app.models.head_files import read_heads
from serve_app.models.openmp import wait_passively

wait_passively()

import torch
from torch.nn import functional


@dataclass(frozen=True)
class EncoderOutput:
    """The token states of one forward.

    Attributes:
        states: ``[n, longest, hidden]`` on the device, in the model's dtype.
        mask: bool ``[n, longest]``, true where there is a token; None if nothing is padding.
        lengths: Tokens of each text.
    """

    states: torch.Tensor
    mask: torch.Tensor | None
    lengths: Sequence[int]


def pooled(hidden: EncoderOutput, pooling: Pooling, *, normalize: bool = True) -> torch.Tensor:
    """Dense vectors, float32 ``[n, hidden]`` on the device, L2-normalised if ``normalize``."""
    states, mask = hidden.states, hidden.mask
    if pooling is Pooling.CLS:
        vectors = states[:, 0].float()
    elif mask is None:
        vectors = states.float().mean(dim=1)
    else:
        vectors = torch.where(mask[..., None], states.float(), 0.0).sum(dim=1) / mask.sum(dim=1, keepdim=True)
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

    def token_weights(self, hidden: EncoderOutput) -> torch.Tensor:
        """Sparse weight of every token, float32 ``[n, longest]`` on the device, >= 0; values at pads are arbitrary."""
        return functional.relu(self.sparse(hidden.states.float())).squeeze(-1)

    def token_vectors(self, hidden: EncoderOutput, row: int) -> torch.Tensor:
        """ColBERT vectors of one text, float32 ``[length - 1, dimension]`` on the device, each L2-normalised."""
        states = hidden.states[row, 1 : hidden.lengths[row]].float()
        return functional.normalize(self.colbert(states), dim=-1)


def max_weight_per_token(ids: Int32, weights: Float32) -> tuple[Int32, Float32]:
    """Distinct token ids of a text and the largest weight of each; tokens without weight are left out.

    Args:
        ids: int32 ``[length]``.
        weights: float32 ``[length]``.
    """
    distinct, place = np.unique(ids, return_inverse=True)
    largest = np.zeros(len(distinct), np.float32)
    np.maximum.at(largest, place, weights)
    kept = largest > 0
    return distinct[kept].astype(np.int32), largest[kept]
