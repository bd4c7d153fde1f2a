"""A forward over one row of all tokens of a micro-batch: no padding is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from serve_app.domain.embeddings import Int32
from serve_app.models.backbone.encoder_output import EncoderOutput, lengths_of
from serve_app.models.backbone.packed_attention import PACKED, register_packed_attention


def can_pack(model: Any) -> bool:
    """True if an architecture dispatches its attention, so that packed attention reaches all of its layers."""
    return bool(getattr(model, "_supports_attention_backend", False))


class PackedBackbone:
    """An encoder or decoder of transformers; a micro-batch is one row, and positions restart with each text."""

    def __init__(self, model: Any, device: torch.device) -> None:
        """Wraps a model that is on the device already, and makes its layers use packed attention.

        Args:
            model: One for which ``can_pack`` holds.
            device: Where it computes. On CUDA its dtype must be bfloat16 or float16.
        """
        register_packed_attention()
        model.set_attn_implementation(PACKED)
        self._model = model
        self._device = device
        self._padding_id = _padding_id_of_positions(model)

    def forward(self, texts: Sequence[Int32]) -> EncoderOutput:
        """States of some texts.

        Args:
            texts: int32 ``[length]`` token ids of each text, special tokens included.
        """
        lengths = lengths_of(texts)
        ids = np.concatenate(texts).astype(np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        row, positions, bounds = (
            torch.from_numpy(each).to(self._device, non_blocking=True)
            for each in (ids, positions_of(ids, lengths, self._padding_id), starts)
        )
        states = self._model(
            input_ids=row[None],
            position_ids=positions[None],
            attention_mask=None,
            cu_seq_lens_q=bounds,
            max_length_q=int(lengths.max()),
        ).last_hidden_state
        return EncoderOutput(states[0], lengths)


def positions_of(ids: NDArray[np.int64], lengths: NDArray[np.int64], padding_id: int | None) -> NDArray[np.int64]:
    """Position of each token of a packed row.

    Args:
        ids: int64 ``[tokens]``.
        lengths: int64 ``[n]``, tokens of each text.
        padding_id: None where positions count from 0. RoBERTa's kind count from ``padding_id + 1``, and give a
            token that IS the padding token, wherever it stands, ``padding_id``.

    Returns:
        int64 ``[tokens]``.
    """
    before = np.repeat(np.cumsum(lengths) - lengths, lengths)  # tokens of the texts before this one
    if padding_id is None:
        return np.arange(len(ids)) - before
    counts = ids != padding_id
    counted = np.concatenate([[0], np.cumsum(counts)])
    return np.where(counts, counted[1:] - counted[before] + padding_id, padding_id)


def _padding_id_of_positions(model: Any) -> int | None:
    """The padding id from which an architecture of RoBERTa's kind counts positions; None for others."""
    embeddings: Any = getattr(model, "embeddings", None)
    if hasattr(embeddings, "create_position_ids_from_input_ids"):
        return int(embeddings.padding_idx)
    return None
