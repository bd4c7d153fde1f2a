"""The size of a batch, and the events about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from serve_app.jobs.job_folder import JobFolder
from tests.training_lines import read_lines
from tests.unit.training.training_jobs import make_job
from training.data.batch_size import choose_batches
from training.reporting import Reporter
from training.training_errors import TrainingError


def chosen(folder: Path, answers: Sequence[str], asked: int, world_size: int = 1) -> tuple[int, int, list[str]]:
    """Size and number of batches of different questions with these answers, and the events."""
    rows = {"query": [f"q{i}" for i in range(len(answers))], "positive": list(answers)}
    spec, job_dir = make_job(folder, folder, batch_size=asked)
    size, batches = choose_batches(rows, spec, Reporter(JobFolder(job_dir).updates_file), world_size=world_size)
    return size, batches, [line["message"] for line in read_lines(job_dir)]


def test_a_batch_has_the_requested_size_where_there_are_enough_pairs(tmp_path: Path) -> None:
    size, batches, (left_over,) = chosen(tmp_path, [f"a{i}" for i in range(100)], 32)
    assert (size, batches) == (32, 3)
    assert left_over.startswith("an epoch trains on 96 of 100 pairs: every batch is full")


def test_a_batch_is_no_larger_than_the_pairs_allow(tmp_path: Path) -> None:
    size, batches, messages = chosen(tmp_path, [f"a{i}" for i in range(10)], 32)
    assert (size, batches) == (10, 1)
    assert messages == ["batches have 10 pairs instead of 32: there are no more pairs without a common text"]


def test_workers_get_equal_parts(tmp_path: Path) -> None:
    size, batches, messages = chosen(tmp_path, [f"a{i}" for i in range(100)], 33, world_size=2)
    assert (size, batches) == (32, 3)
    assert messages[0] == "batches have 32 pairs instead of 33: equal parts for each worker"


def test_batches_shrink_until_half_of_the_pairs_are_trained_on(tmp_path: Path) -> None:
    answers = [f"a{i}" for i, size in enumerate([40, 25, 15, 8, 5, 3, 2, 2]) for _ in range(size)]
    size, batches, messages = chosen(tmp_path, answers, 32)
    assert size == 4
    assert 50 <= size * batches <= 100
    assert messages[:1] == [
        "batches have 4 pairs instead of 32: "
        "in larger ones most pairs would conflict with others that have the same text"
    ]


def test_pairs_that_are_never_trained_on_are_reported(tmp_path: Path) -> None:
    size, batches, messages = chosen(tmp_path, ["same"] * 90 + [f"a{i}" for i in range(10)], 32)
    assert (size, batches) == (2, 10)
    assert messages[-1] == "an epoch trains on 20 of 100 pairs: the others share their texts"


@pytest.mark.parametrize("seed", range(20))
def test_pairs_without_conflicts_are_trained_in_any_order(tmp_path: Path, seed: int) -> None:
    rows = {"query": ["q0", "q2", "q2", "q3"], "positive": ["p2", "p1", "p2", "p0"]}
    spec, job_dir = make_job(tmp_path, tmp_path, batch_size=8, seed=seed)
    size, batches = choose_batches(rows, spec, Reporter(JobFolder(job_dir).updates_file), world_size=1)
    assert 2 <= size <= 3
    assert batches >= 1


@pytest.mark.parametrize(("answers", "asked"), [(["same"] * 5, 8), (["a", "b"], 1)])
def test_a_job_without_two_pairs_that_fit_one_batch_fails(tmp_path: Path, answers: list[str], asked: int) -> None:
    with pytest.raises(TrainingError, match="no negatives"):
        chosen(tmp_path, answers, asked)
