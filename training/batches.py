"""Which pairs meet in a batch, in an order that a resumed job finds again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from serve_app.models.openmp import wait_passively

wait_passively()

from sentence_transformers.base.sampler import NoDuplicatesBatchSampler
from transformers import TrainerCallback, TrainerState

from training.data import Mark, clash, marks


class NoRivals(NoDuplicatesBatchSampler):
    """Batches in which no row's query or positive occurs in another row.

    The library's own sampler keeps rows apart that have a negative in common, too, and forms no batch at all where
    all rows have the same one. Columns are query, positive and negatives, in this order.
    """

    def _iter_one_pass(self, *_: Callable[..., Any]) -> Iterator[list[int]]:
        def marks_of(index: int) -> set[Mark]:
            return marks(tuple(self.dataset[index].values()))

        one_pass: Any = super()._iter_one_pass  # to the library, what is compared are texts
        yield from one_pass(marks_of, clash)


class SetsEpoch(TrainerCallback):
    """Tells a sampler which epoch begins.

    The trainer does so itself, but not in the first epoch of a resumed job with several workers: there two wrappers
    stand between them, and the job would go on with the rest of another order.
    """

    def __init__(self, sampler: Any) -> None:
        """Takes a sampler with ``set_epoch``."""
        self._sampler = sampler

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """The epoch is counted in parts, and has ended where it is whole."""
        self._sampler.set_epoch(int(state.epoch or 0))
