"""Checkpoints by time beside those by steps: on a slow device fifty steps take an hour."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

SECONDS_BETWEEN_CHECKPOINTS = 60.0
TRAINING_PER_WRITING = 10.0
"""Training time before the next checkpoint, as a multiple of the time that the last one took to write: checkpoints of a
large model are gigabytes, and writing them must stay a small share of the time."""


class TimedCheckpointCallback(TrainerCallback):
    """Requests checkpoints by time; those that the trainer writes by steps restart the clock."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes a clock in seconds."""
        self._clock = clock
        self._due_at = math.inf
        self._step_ended_at = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Starts the clock."""
        self._due_at = self._clock() + SECONDS_BETWEEN_CHECKPOINTS

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Requests a checkpoint on all workers or on none."""
        self._step_ended_at = self._clock()
        if not control.should_save:
            control.should_save = _as_first_worker(self._step_ended_at >= self._due_at, args)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Restarts the clock, with a longer wait after a slower checkpoint."""
        now = self._clock()
        self._due_at = now + max(SECONDS_BETWEEN_CHECKPOINTS, TRAINING_PER_WRITING * (now - self._step_ended_at))


def _as_first_worker(answer: bool, args: TrainingArguments) -> bool:
    """The first worker's answer: clocks differ, and in a checkpoint the workers wait for each other."""
    if args.world_size == 1:
        return answer
    shared = torch.tensor(int(answer), device=args.device)
    distributed.broadcast(shared, src=0)
    return bool(shared)
