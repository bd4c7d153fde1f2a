"""What a job asks Ray Train for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.training.jobs import make_job
from training.ray_train import backend


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        (0, "gloo"),
        (0.25, "gloo"),
        (0.5, "gloo"),  # two such workers may share one GPU, where NCCL refuses to work
        (0.6, "nccl"),
        (1, "nccl"),
    ],
)
def test_workers_talk_through_nccl_only_where_none_shares_a_gpu(
    tmp_path: Path, e5_tiny: Path, gpus: float, expected: str
) -> None:
    spec, _ = make_job(tmp_path, e5_tiny, gpus_per_worker=gpus)
    assert backend(spec) == expected
