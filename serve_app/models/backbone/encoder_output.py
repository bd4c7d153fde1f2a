"""Token states of several texts, one after the other without padding: what every head reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from serve_app.domain.embeddings import Int32


@dataclass(frozen=True, eq=False)
class EncoderOutput:
    """The token states of one forward.

    Attributes:
        states: ``[tokens, hidden]`` on the device, in the model's dtype; the texts in order, no padding.
        lengths: int64 ``[n]`` on the host, tokens of each text, every one at least 1.
    """

    states: torch.Tensor
    lengths: NDArray[np.int64]

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """int64 ``[n + 1]`` on the host: text ``i`` has the states ``offsets[i]`` to ``offsets[i + 1]`` (exclusive)."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    @cached_property
    def segments(self) -> torch.Tensor:
        """int64 ``[tokens]`` on the device: the text of each token."""
        return self._on_device(np.repeat(np.arange(len(self.lengths)), self.lengths))

    @cached_property
    def counts(self) -> torch.Tensor:
        """int64 ``[n]`` on the device: tokens of each text."""
        return self._on_device(self.lengths)

    @cached_property
    def firsts(self) -> torch.Tensor:
        """int64 ``[n]`` on the device: index of the first token of each text."""
        return self._on_device(self.offsets[:-1])

    def tokens_of(self, texts: NDArray[np.bool_], *, skip_first: bool) -> torch.Tensor:
        """int64 on the device: indices of the tokens of some texts.

        Args:
            texts: bool ``[n]``, true for the texts that are meant.
            skip_first: Leaves the first token of each text out.
        """
        wanted = np.repeat(texts, self.lengths)
        if skip_first:
            wanted[self.offsets[:-1]] = False
        return self._on_device(np.flatnonzero(wanted))

    def _on_device(self, values: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(values).to(self.states.device, non_blocking=True)


def lengths_of(texts: Sequence[Int32]) -> NDArray[np.int64]:
    """int64 ``[n]``, tokens of each text."""
    return np.fromiter(map(len, texts), np.int64, len(texts))
