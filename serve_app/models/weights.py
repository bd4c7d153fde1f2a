"""Weights from a model folder: all of them or none, never random numbers in place of missing ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from serve_app.domain.errors import ModelLoadError


def load_weights(auto_class: Any, folder: Path, dtype: torch.dtype, **options: object) -> torch.nn.Module:
    """Loads a model with transformers; no code of the folder is ever executed.

    Args:
        auto_class: ``transformers.AutoModel`` or one of its kind.
        folder: An ordinary Hugging Face model folder.
        dtype: Of the weights in memory; the file may store another.
        options: Further arguments of the model's class.

    Returns:
        The model on the host, in evaluation mode.

    Raises:
        ModelLoadError: Weights are missing, unreadable, not finite, or do not fit the configuration.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # its load report is read below, not printed
    transformers_logging.disable_progress_bar()
    try:
        model, report = auto_class.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="sdpa",
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelLoadError(f"the weights in {folder} cannot be loaded ({reason})") from error
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would use random numbers in their place
        raise ModelLoadError(f"the weights in {folder} lack {len(missing)} tensors, among them {missing[0]!r}")
    assert isinstance(model, torch.nn.Module)
    _check_finite(model, folder)
    return model


def _check_finite(model: torch.nn.Module, folder: Path) -> None:
    """Smallest and largest number of each tensor, read once and without a copy; NaN is both."""
    for name, tensor in model.named_parameters():
        if tensor.is_floating_point() and tensor.numel() and not all(map(torch.isfinite, torch.aminmax(tensor))):
            raise ModelLoadError(
                f"the weights in {folder} hold NaN or infinity as {str(tensor.dtype).removeprefix('torch.')}, in "
                f"{name!r}; copy them from the original model again, or choose a wider `dtype:`"
            )


def count_weights(folder: Path) -> int:
    """The number of weights in the safetensors files of a folder; reads their headers only."""
    from safetensors import safe_open

    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return count
