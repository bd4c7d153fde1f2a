"""Batches without conflicts, in an order that a resumed job reproduces."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers.base.sampler import DefaultBatchSampler
from transformers import TrainerCallback, TrainerState

from training.data.conflict_free_batches import full_batches, text_ids


class ConflictFreeBatchSampler(DefaultBatchSampler):
    """Batches in which no row's query or positive occurs in another row; every epoch has as many as the first.

    The library's own sampler keeps rows apart that have a negative in common, too, and promises more batches than it
    yields where many rows share a passage: then neither progress nor learning rate nor a resumed job's place is right.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        """Plans the first epoch.

        Args:
            dataset: Columns are query, positive and negatives, in this order.
            batch_size: Of every batch.
            drop_last: Incomplete batches are always dropped.
            valid_label_columns: For the base class.
            generator: For the base class; the order depends on seed and epoch alone.
            seed: Of the order.
        """
        super().__init__(dataset, batch_size, drop_last, valid_label_columns, generator, seed)
        self._ids = text_ids(dataset[name] for name in dataset.column_names)
        self._batches = len(full_batches(self._ids, batch_size, seed=seed))

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self._batches

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the epoch that was set; where they are fewer than in the first, some come twice."""
        orders = (full_batches(self._ids, self.batch_size, seed=self.seed, epoch=epoch) for epoch in (self.epoch, 0))
        found = next(filter(None, orders), [])  # where nearly all pairs conflict an order may give no batch at all
        return islice(cycle(found), len(self))


class SetEpochCallback(TrainerCallback):
    """Sets a sampler's epoch when it begins.

    The trainer does so itself, but not in the first epoch of a resumed job with several workers: there two wrappers
    stand between them, and the job would continue with the rest of another order.
    """

    def __init__(self, sampler: Any) -> None:
        """Takes a sampler with ``set_epoch``."""
        self._sampler = sampler

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """The epoch is counted in parts, and has ended where it is whole."""
        self._sampler.set_epoch(int(state.epoch or 0))
