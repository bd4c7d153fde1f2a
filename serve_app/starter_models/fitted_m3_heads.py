"""BGE-M3's two heads for the starter model, from 7 KB of numbers that come with this package.

They were fitted to the final token states of the starter multilingual-e5-small, without labels. ``sparse_linear`` is a
ridge regression that predicts a token's inverse document frequency, scaled. ``colbert_linear`` is the identity with a
bias that takes the mean state off, because E5's states all lean one way.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HEADS_FILE = "m3_small_heads.json"


@dataclass(frozen=True, slots=True, eq=False)
class M3Heads:
    """The numbers of both heads.

    Attributes:
        colbert_bias: float32 ``[hidden]``, added to a token state.
        sparse_weight: float32 ``[hidden]``.
        sparse_bias: added to the product; a token's weight is what lies above zero.
    """

    colbert_bias: NDArray[np.float32]
    sparse_weight: NDArray[np.float32]
    sparse_bias: float

    @property
    def hidden(self) -> int:
        """Width of the token states they are for."""
        return len(self.colbert_bias)


def fitted_heads() -> M3Heads:
    """The heads that fit the starter model; they fit no other weights."""
    numbers = json.loads(resources.files(__package__).joinpath(HEADS_FILE).read_text(encoding="utf-8"))
    return M3Heads(
        colbert_bias=np.array(numbers["colbert_bias"], np.float32),
        sparse_weight=np.array(numbers["sparse_weight"], np.float32),
        sparse_bias=numbers["sparse_bias"],
    )


def write_heads(folder: Path, heads: M3Heads) -> None:
    """Write ``colbert_linear.pt`` and ``sparse_linear.pt``: state dicts of torch's Linear in float32, as BGE-M3's are.

    Args:
        folder: an existing folder.
        heads: what to write.
    """
    import torch  # here: nothing else in this package needs it, and it takes seconds to load

    states = {
        "colbert_linear": {"weight": np.eye(heads.hidden, dtype=np.float32), "bias": heads.colbert_bias},
        "sparse_linear": {
            "weight": heads.sparse_weight[None, :],
            "bias": np.array([heads.sparse_bias], np.float32),
        },
    }
    for name, state in states.items():
        torch.save({key: torch.from_numpy(value) for key, value in state.items()}, folder / f"{name}.pt")
