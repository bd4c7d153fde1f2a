"""The layout of a model's micro-batches: packed where that is verified to compute the same, else padded."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cosine_similarity

from serve_app.models.backbone.packed import PackedBackbone, can_pack
from serve_app.models.backbone.padded import PaddedBackbone

logger = logging.getLogger(__name__)

_LEAST_COSINE = 0.99  # of each token's state in 16 bits; other texts' tokens in the attention move it much further
_PROBES = [
    np.arange(5, 5 + length, dtype=np.int32) for length in (3, 9, 2)
]  # few ids, so that all vocabularies have them


def choose_backbone(
    model: Any, device: torch.device, dtype: torch.dtype, *, packed: bool | None = None
) -> PackedBackbone | PaddedBackbone:
    """The forward of a model.

    Before a packed layout is used it computes a few short texts, and the padded one computes the same. Where they
    differ or the packed one fails, a warning names the reason and micro-batches are padded.

    Args:
        model: An encoder or decoder of transformers, on the device.
        device: Where it computes.
        dtype: What it computes in.
        packed: Whether to pack; None for the answer of ``wants_packed``.
    """
    padded = PaddedBackbone(model, device)
    if not (wants_packed(model, device, dtype) if packed is None else packed):
        return padded
    padded_attention = model.config._attn_implementation
    with torch.inference_mode():
        expected = padded.forward(_PROBES).states.float()
        try:
            candidate = PackedBackbone(model, device)
            cosine = float(cosine_similarity(candidate.forward(_PROBES).states.float(), expected).min())
            if cosine > _LEAST_COSINE:
                return candidate
            reason = f"its states differ from those of a padded forward (cosine {cosine:.4f})"
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
    logger.warning("a model of type %r is served with padding, not packed: %s", model.config.model_type, reason)
    model.set_attn_implementation(padded_attention)
    return padded


def wants_packed(model: Any, device: torch.device, dtype: torch.dtype) -> bool:
    """True if the device has variable-length attention for the dtype, and the architecture dispatches to it.

    A CPU attends text by text in a packed row, which is slower than padding.
    """
    return device.type == "cuda" and dtype in (torch.bfloat16, torch.float16) and can_pack(model)
