"""The interface between a training loss and the rest of a job."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from serve_app.domain.embeddings import Encoded


class Heads(Protocol):
    """Layers beside the encoder that are trained and saved with it."""

    def save(self, folder: Path) -> None:
        """Writes them as the family's model folders have them."""

    def encode(self, model: SentenceTransformer, output: Mapping[str, Tensor]) -> Encoded:
        """All representations of one text, from the model's output for a batch of that text."""


@dataclass(frozen=True)
class Objective:
    """A loss with what else a job needs to know of it.

    Attributes:
        loss: Holds the model, and an int ``mini_batch_size`` that may change between two steps. Its own layers, if it
            trains any, are its attribute ``heads``.
        heads: The same layers; None where the loss trains the encoder alone.
        chance_loss: The loss of a model that scores all passages of a batch equally, by their number.
    """

    loss: nn.Module
    heads: Heads | None = None
    chance_loss: Callable[[int], float] = math.log
