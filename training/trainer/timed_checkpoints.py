"""When a checkpoint is due although few steps were taken: on a slow device fifty of them are an hour's work."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from serve_app.models.openmp import wait_passively

wait_passively()

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

SECONDS_BETWEEN_CHECKPOINTS = 60.0
TIMES_AS_LONG = 10.0
"""So many times as long as the last checkpoint took, training goes on before the next one: those of a large model are
gigabytes, and writing them must stay a small share of the time."""


class TimedCheckpointCallback(TrainerCallback):
    """Asks the trainer for checkpoints beside those of every so many steps, which count as well."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes a clock in seconds."""
        self._clock = clock
        self._due_at = math.inf
        self._step_ended_at = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Waits from here on."""
        self._due_at = self._clock() + SECONDS_BETWEEN_CHECKPOINTS

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Asks for a checkpoint on all workers or on none."""
        self._step_ended_at = self._clock()
        if not control.should_save:
            control.should_save = _as_first_worker(self._step_ended_at >= self._due_at, args)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Waits again, the longer the longer it took."""
        now = self._clock()
        self._due_at = now + max(SECONDS_BETWEEN_CHECKPOINTS, TIMES_AS_LONG * (now - self._step_ended_at))


def _as_first_worker(answer: bool, args: TrainingArguments) -> bool:
    """The first worker's answer: clocks differ, and in a checkpoint the workers wait for each other."""
    if args.world_size == 1:
        return answer
    told = torch.tensor(int(answer), device=args.device)
    distributed.broadcast(told, src=0)
    return bool(told)
