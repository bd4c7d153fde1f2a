"""A forward over texts padded to the longest of them, for architectures and devices without packed attention."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from serve_app.domain.embeddings import Int32
from serve_app.models.backbone.encoder_output import EncoderOutput, lengths_of

_ANY_ID = 1  # under the mask no id matters; 1 is what XLM-RoBERTa derives positions from


class PaddedBackbone:
    """An encoder of transformers; a micro-batch is a rectangle of its longest text."""

    def __init__(self, model: torch.nn.Module, device: torch.device) -> None:
        """Wraps a model that is on the device already."""
        self._model = model
        self._device = device

    def forward(self, texts: Sequence[Int32]) -> EncoderOutput:
        """States of some texts.

        Args:
            texts: int32 ``[length]`` token ids of each text, special tokens included.
        """
        ids, mask = pad(texts, self._device)
        states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        return EncoderOutput(states.flatten(0, 1) if mask is None else states[mask], lengths_of(texts))


def pad(texts: Sequence[Int32], device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """int64 ids ``[n, longest]`` and bool mask ``[n, longest]`` (None if nothing is padding), on the device."""
    lengths = lengths_of(texts)
    longest = int(lengths.max())
    filled = np.arange(longest) < lengths[:, None]
    ids = np.full((len(texts), longest), _ANY_ID, np.int64)
    ids[filled] = np.concatenate(texts)
    tensor = torch.from_numpy(ids).to(device, non_blocking=True)
    return tensor, None if filled.all() else torch.from_numpy(filled).to(device, non_blocking=True)
