"""The learning rate of each step, and what checkpoints keep."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from training.trainer import checkpoints
from training.trainer.training_arguments import rate_factor
from training.training_errors import DISK_FULL, OUT_OF_MEMORY, TrainingError, reason_of


def test_the_rate_rises_and_falls_linearly() -> None:
    factors = [rate_factor(step, total_steps=10, warmup_ratio=0.2) for step in range(10)]
    assert factors == pytest.approx([1 / 3, 2 / 3, *(i / 8 for i in range(8, 0, -1))])


@given(total=st.integers(1, 500), ratio=st.floats(0, 0.9))
def test_every_step_has_a_rate_and_one_the_peak(total: int, ratio: float) -> None:
    factors = [rate_factor(step, total_steps=total, warmup_ratio=ratio) for step in range(total)]
    assert min(factors) > 0
    assert max(factors) == 1


def make_loss() -> nn.Module:
    loss = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    loss[0].weight.requires_grad_(False)
    return loss


def test_a_checkpoint_keeps_what_is_trained_and_nothing_else(tmp_path: Path) -> None:
    trained, fresh = make_loss(), make_loss()
    frozen = fresh[0].weight.clone()
    checkpoints.save_trained(trained, tmp_path / "checkpoint-1")
    checkpoints.load_trained(fresh, tmp_path / "checkpoint-1")
    assert torch.equal(fresh[1].weight, trained[1].weight)
    assert torch.equal(fresh[0].bias, trained[0].bias)
    assert torch.equal(fresh[0].weight, frozen)


def test_a_wrapped_model_reads_a_checkpoint_of_one_that_is_not(tmp_path: Path) -> None:
    plain, wrapped = nn.ModuleDict({"model": make_loss()}), nn.ModuleDict({"model": nn.DataParallel(make_loss())})
    checkpoints.save_trained(plain, tmp_path)
    checkpoints.load_trained(wrapped, tmp_path)
    assert torch.equal(wrapped["model"].module[1].weight.cpu(), plain["model"][1].weight)  # it moves to a GPU


def test_a_checkpoint_of_another_job_is_refused(tmp_path: Path) -> None:
    checkpoints.save_trained(nn.Sequential(nn.Linear(2, 3)), tmp_path)
    with pytest.raises(TrainingError, match="does not fit"):
        checkpoints.load_trained(make_loss(), tmp_path)


def test_only_complete_checkpoints_are_resumed_from(tmp_path: Path) -> None:
    assert checkpoints.newest_complete(tmp_path) is None
    for step in (2, 9, 10, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (9, 2, 10):
        checkpoints.mark_complete(tmp_path / f"checkpoint-{step}")
    newest = checkpoints.newest_complete(tmp_path)
    assert newest is not None
    assert checkpoints.step_of(newest) == 10
    checkpoints.remove_incomplete(tmp_path)
    assert not (tmp_path / "checkpoint-12").exists()
    assert newest.exists()


def test_a_resumed_job_starts_with_the_size_that_fitted(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    assert checkpoints.recall_mini_batch_size(folder, 16) == 16
    checkpoints.remember_mini_batch_size(folder, 4)
    assert checkpoints.recall_mini_batch_size(folder, 16) == 4


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TrainingError("too few pairs"), "too few pairs"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), OUT_OF_MEMORY),
        (OSError(errno.ENOSPC, "No space left on device"), DISK_FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), DISK_FULL),
        (RuntimeError('IoError(Os { code: 28, kind: StorageFull, message: "..." })'), DISK_FULL),
        (OSError(errno.EACCES, "Permission denied"), "unexpected PermissionError: [Errno 13] Permission denied"),
        (KeyError("x"), "unexpected KeyError: 'x'"),
        (RuntimeError("first\nsecond"), "unexpected RuntimeError: first"),
        (RuntimeError(), "unexpected RuntimeError"),
    ],
)
def test_an_error_has_one_sentence_for_the_user(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason
