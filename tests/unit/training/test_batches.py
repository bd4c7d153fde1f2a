"""Which pairs meet, and in which order a resumed job goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, prepare_data_loader, skip_first_batches
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import TrainerState

from training.batches import NoRivals, SetsEpoch
from training.data import clash, marks

SHARED = {
    "query": [f"q{i}" for i in range(16)],
    "positive": [f"p{i // 2}" for i in range(16)],  # of two queries each
    "negative_1": ["n"] * 16,
}


def sampler() -> NoRivals:
    return NoRivals(Dataset.from_dict(SHARED), batch_size=8, drop_last=True, generator=torch.Generator(), seed=7)


def test_a_negative_of_all_rows_keeps_none_of_them_apart_and_a_common_positive_does() -> None:
    rows = list(zip(*SHARED.values(), strict=True))
    batches = list(sampler())
    assert sorted(i for batch in batches for i in batch) == list(range(16))
    for batch in batches:
        for i in batch:
            assert not any(clash(marks(rows[i]), marks(rows[other])) for other in batch if other != i)


@pytest.mark.parametrize("epoch", [0, 1, 2])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_job_of_two_workers_that_is_resumed_inside_of_an_epoch_goes_on_in_its_order(epoch: int, rank: int) -> None:
    def loader() -> tuple[NoRivals, Any]:
        batches = sampler()
        plain = DataLoader(range(16), batch_sampler=batches)  # type: ignore[arg-type]
        return batches, prepare_data_loader(
            plain, num_processes=2, process_index=rank, split_batches=True, even_batches=False, put_on_device=False
        )

    whole_sampler, whole = loader()
    assert isinstance(whole.batch_sampler, BatchSamplerShard)
    whole_sampler.set_epoch(epoch)
    expected = seen(whole)
    resumed_sampler, resumed = loader()
    resumed = skip_first_batches(resumed, 1)
    resumed.set_epoch(epoch)  # as the trainer does, and it does not reach the sampler
    SetsEpoch(resumed_sampler).on_epoch_begin(None, TrainerState(epoch=epoch + 0.5), None)
    assert seen(resumed) == expected[1:]


def seen(loader: Any) -> list[list[int]]:
    batches: Iterator[torch.Tensor] = iter(loader)
    return [batch.tolist() for batch in batches]
