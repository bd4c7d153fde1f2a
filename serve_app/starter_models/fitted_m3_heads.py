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

from serve_app.models.head_files import write_heads

HEADS_FILE = "m3_small_heads.json"


@dataclass(frozen=True, slots=True, eq=False)
class FittedHeads:
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

    def write(self, folder: Path) -> None:
        """Writes both heads, float32, into an existing folder."""
        import torch  # here: nothing else in this package needs it, and it takes seconds to load

        sparse = {"weight": self.sparse_weight[None, :], "bias": np.array([self.sparse_bias], np.float32)}
        colbert = {"weight": np.eye(self.hidden, dtype=np.float32), "bias": self.colbert_bias}
        write_heads(
            folder,
            sparse={key: torch.from_numpy(value) for key, value in sparse.items()},
            colbert={key: torch.from_numpy(value) for key, value in colbert.items()},
        )


def fitted_heads() -> FittedHeads:
    """The heads that fit the starter model; they fit no other weights."""
    numbers = json.loads(resources.files(__package__).joinpath(HEADS_FILE).read_text(encoding="utf-8"))
    return FittedHeads(
        colbert_bias=np.array(numbers["colbert_bias"], np.float32),
        sparse_weight=np.array(numbers["sparse_weight"], np.float32),
        sparse_bias=numbers["sparse_bias"],
    )
