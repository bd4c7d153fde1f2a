"""The files of BGE-M3's sparse and ColBERT heads: state dicts of ``torch.nn.Linear``, as FlagEmbedding writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from serve_app.domain.errors import ModelLoadError

if TYPE_CHECKING:  # torch takes seconds to load, and the names of the files are needed without it
    import torch

SPARSE_FILE = "sparse_linear.pt"
COLBERT_FILE = "colbert_linear.pt"
HEAD_FILES = (COLBERT_FILE, SPARSE_FILE)


def read_heads(folder: Path, hidden_size: int | None = None) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    """The sparse and the ColBERT layer, float32 on the CPU; weights only, nothing in the files is executed.

    Args:
        folder: A model folder, or an adapter's.
        hidden_size: Width of the token states that the layers read; None for the width of the ColBERT file.

    Raises:
        ModelLoadError: A file is missing, does not fit the model or the other file, or holds NaN or infinity. No
            layer is ever filled with random numbers instead.
    """
    colbert = _read_linear(folder / COLBERT_FILE, hidden_size)
    sparse = _read_linear(folder / SPARSE_FILE, colbert.in_features)
    if sparse.out_features != 1:
        raise ModelLoadError(
            f"{folder / SPARSE_FILE} has {sparse.out_features} rows instead of 1, the weight of a token; copy it from "
            f"the original model again"
        )
    return sparse, colbert


def write_heads(folder: Path, *, sparse: Mapping[str, torch.Tensor], colbert: Mapping[str, torch.Tensor]) -> None:
    """Writes both files, readable for everyone, into an existing folder.

    Args:
        folder: A model folder, or an adapter's.
        sparse: ``weight`` ``[1, hidden]`` and ``bias`` ``[1]``.
        colbert: ``weight`` ``[dimension, hidden]`` and ``bias`` ``[dimension]``.
    """
    import torch

    for name, state in ((SPARSE_FILE, sparse), (COLBERT_FILE, colbert)):
        torch.save({key: value.detach().cpu().clone() for key, value in state.items()}, folder / name)
        (folder / name).chmod(0o644)


def _read_linear(path: Path, hidden_size: int | None) -> torch.nn.Linear:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        rows, width = state["weight"].shape
        # an explicit dtype: transformers changes the default of all threads while it loads a model
        layer = torch.nn.Linear(hidden_size or width, rows, dtype=torch.float32)
        layer.load_state_dict(state)
    except FileNotFoundError:
        raise ModelLoadError(
            f"{path} is missing: copy {SPARSE_FILE} and {COLBERT_FILE} of the original BAAI/bge-m3 (or of your "
            f"fine-tune) into the folder; to serve dense vectors alone, set `dense_only: true` beside the model's name"
        ) from None
    except Exception as error:  # damaged archives raise many types
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        over = f" over {hidden_size} numbers" if hidden_size else ""
        raise ModelLoadError(
            f"{path} cannot be read as a linear layer{over} ({reason}); copy it from the original model again"
        ) from error
    if rows == 0 or not all(value.isfinite().all() for value in layer.state_dict().values()):
        raise ModelLoadError(f"{path} holds NaN, infinity or nothing; copy it from the original model again")
    return layer
