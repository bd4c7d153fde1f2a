"""Checkpoints by time: often enough, and never much of the time."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from training.trainer.timed_checkpoints import SECONDS_BETWEEN_CHECKPOINTS, TimedCheckpointCallback


def saved_steps(*, steps: int, step_s: float, save_s: float, folder: Path, every: int = 1000) -> list[int]:
    """Steps behind which a training saves that also does so every so many steps."""
    now, saved = 0.0, []
    args = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none")
    state, saves = TrainerState(), TimedCheckpointCallback(clock=lambda: now)
    saves.on_train_begin(args, state, TrainerControl())
    for step in range(1, steps + 1):
        control = TrainerControl(should_save=step % every == 0)
        now += step_s
        saves.on_step_end(args, state, control)
        if control.should_save:
            now += save_s
            saves.on_save(args, state, control)
            saved.append(step)
    return saved


def test_slow_steps_are_saved_every_minute(tmp_path: Path) -> None:
    assert saved_steps(steps=9, step_s=21.0, save_s=0.5, folder=tmp_path) == [3, 6, 9]
    assert saved_steps(steps=3, step_s=100.0, save_s=0.5, folder=tmp_path) == [1, 2, 3]


def test_quick_steps_are_saved_by_their_number_alone(tmp_path: Path) -> None:
    assert saved_steps(steps=200, step_s=1.0, save_s=0.5, folder=tmp_path, every=50) == [50, 100, 150, 200]


@pytest.mark.parametrize("save_s", [1.0, 6.0, 20.0, 300.0])
def test_writing_takes_a_tenth_of_the_time_at_most(tmp_path: Path, save_s: float) -> None:
    steps, step_s = 2000, 7.0
    saves = len(saved_steps(steps=steps, step_s=step_s, save_s=save_s, folder=tmp_path, every=10**6))
    first = save_s  # its duration is not known before
    assert saves * save_s - first <= 0.1 * steps * step_s
    assert saves >= steps * step_s / (max(SECONDS_BETWEEN_CHECKPOINTS, 10 * save_s) + step_s) - 1
