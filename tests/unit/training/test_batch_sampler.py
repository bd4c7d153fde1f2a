"""Batches of an epoch, and their order in a resumed job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, prepare_data_loader, skip_first_batches
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import TrainerState

from training.data.batch_sampler import ConflictFreeBatchSampler, SetEpochCallback

SHARED = {
    "query": [f"q{i}" for i in range(16)],
    "positive": [f"p{i // 2}" for i in range(16)],  # of two queries each
    "negative_1": ["n"] * 16,
}


def sampler() -> ConflictFreeBatchSampler:
    return ConflictFreeBatchSampler(
        Dataset.from_dict(SHARED), batch_size=8, drop_last=True, generator=torch.Generator(), seed=7
    )


def test_every_epoch_has_as_many_batches_as_the_first() -> None:
    answers = [f"a{i}" for i, size in enumerate([40, 25, 15, 8, 5, 3, 2, 2]) for _ in range(size)]
    rows = Dataset.from_dict({"query": [f"q{i}" for i in range(100)], "positive": answers})
    batches = ConflictFreeBatchSampler(rows, batch_size=6, drop_last=True, seed=7)
    found = []
    for epoch in range(20):
        batches.set_epoch(epoch)
        found.append(list(batches))
        assert all(len({answers[row] for row in batch}) == 6 for batch in found[-1])
    assert {len(epoch) for epoch in found} == {len(batches)}
    assert len({str(epoch) for epoch in found}) == 20


def test_an_epoch_whose_order_gives_no_batch_takes_those_of_the_first() -> None:
    rows = {"query": ["q0", "q0", "q1", "q1", "q2"], "positive": ["p1", "p2", "p2", "p3", "p3"]}
    batches = ConflictFreeBatchSampler(Dataset.from_dict(rows), batch_size=3, drop_last=True, seed=0)
    counts = []
    for epoch in range(10):
        batches.set_epoch(epoch)
        counts.append(len(list(batches)))
    assert counts == [1] * 10


@pytest.mark.parametrize("epoch", [0, 1, 2])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_job_of_two_workers_resumes_the_order_of_its_epoch(epoch: int, rank: int) -> None:
    def loader() -> tuple[ConflictFreeBatchSampler, Any]:
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
    SetEpochCallback(resumed_sampler).on_epoch_begin(None, TrainerState(epoch=epoch + 0.5), None)
    assert seen(resumed) == expected[1:]


def seen(loader: Any) -> list[list[int]]:
    batches: Iterator[torch.Tensor] = iter(loader)
    return [batch.tolist() for batch in batches]
