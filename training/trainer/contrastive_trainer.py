"""The trainer of sentence-transformers, with progress reports, resumable checkpoints and recovery from full memory."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainer
from torch import distributed, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback

from serve_app.models.batching.isolation import is_out_of_memory
from training.data.batch_sampler import SetEpochCallback
from training.reporting import Reporter
from training.trainer.checkpoints import load_trained, mark_complete, remember_mini_batch_size, save_trained
from training.trainer.timed_checkpoints import TimedCheckpointCallback
from training.trainer.training_arguments import rate_factor
from training.training_errors import TrainingError

logger = logging.getLogger(__name__)

OnCheckpoint = Callable[[int, float], None]
"""Called on every worker after a checkpoint, with the step and the latest loss."""

SECONDS_BETWEEN_LINES = 1.0  # a tiny model takes hundreds of steps a second


class ContrastiveTrainer(SentenceTransformerTrainer):
    """Takes the steps; checkpoints hold what is trained, the heads of a loss included, and nothing else."""

    def __init__(
        self, *, loss: nn.Module, warmup_ratio: float, reporter: Reporter, on_checkpoint: OnCheckpoint, **options: Any
    ) -> None:
        """Sets up a training.

        Args:
            loss: With the model inside, and an int ``mini_batch_size`` that may change between two steps.
            warmup_ratio: Share of the steps in which the learning rate rises.
            reporter: Receives steps, checkpoints and memory errors.
            on_checkpoint: Called after each checkpoint.
            options: As for a ``SentenceTransformerTrainer``.
        """
        super().__init__(loss=loss, **options)
        self.remove_callback(PrinterCallback)
        self.add_callback(TimedCheckpointCallback())
        self._warmup_ratio = warmup_ratio
        self._objective: Any = loss
        self._folder = Path(self.args.output_dir or ".")
        self._reporter = reporter
        self._on_checkpoint = on_checkpoint
        self._tokens = 0
        self._losses: list[float] = []
        self._last_loss = math.nan
        self._line_time = self._start_time = time.monotonic()
        self._start_step = 0

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Adds nothing: the result has a manifest, and a model card takes minutes with a large data set."""

    def get_batch_sampler(self, *args: Any, **options: Any) -> Any:
        """The order of the pairs; a resumed job continues that of its epoch."""
        sampler = super().get_batch_sampler(*args, **options)
        self.add_callback(SetEpochCallback(sampler))
        return sampler

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        """The learning-rate schedule over all steps of the job."""
        factor = partial(rate_factor, total_steps=num_training_steps, warmup_ratio=self._warmup_ratio)
        optimizer = optimizer or self.optimizer
        assert optimizer is not None
        self.lr_scheduler = scheduler = LambdaLR(optimizer, factor)
        return scheduler

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **options: Any) -> torch.Tensor:
        """The gradient of one batch. If memory runs out, the same batch again in mini-batches of half the size."""
        self._tokens += sum(int(v.sum()) for name, v in inputs.items() if name.endswith("attention_mask"))
        while True:
            try:
                return super().training_step(model, dict(inputs), *args, **options)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if not self._halve_mini_batch() or self.args.world_size > 1:
                    raise  # the other workers wait in an exchange, so all restart with smaller ones
            # outside of the handler: the traceback holds the tensors of the failed attempt alive
            self._objective.zero_grad()
            if self.args.device.type == "cuda":
                torch.cuda.empty_cache()

    def _halve_mini_batch(self) -> bool:
        """Halves the mini-batch for this process and for those that resume the job; False if it is a single text."""
        size = min(int(self._objective.mini_batch_size), int(self.args.train_batch_size))
        if size == 1:
            return False
        self._objective.mini_batch_size = size // 2
        remember_mini_batch_size(self._folder, size // 2)
        self._reporter.event("warning", f"memory ran out with {size} texts at a time; continuing with {size // 2}")
        return True

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Reports a step.

        Raises:
            TrainingError: The loss is NaN or infinite.
        """
        super().log(logs, start_time)
        self.state.log_history.clear()  # unused; it would grow with every step, and each checkpoint with it
        if "loss" not in logs:
            return
        self._last_loss = float(logs["loss"])
        if not math.isfinite(self._last_loss):
            found = f"the loss is {self._last_loss} at step {self.state.global_step}"
            raise TrainingError(f"training diverged ({found}); lower `learning_rate`")
        self._losses.append(self._last_loss)
        now, step = time.monotonic(), self.state.global_step
        if now - self._line_time >= SECONDS_BETWEEN_LINES or step in (self._start_step + 1, self.state.max_steps):
            self._report_progress(now, step, float(logs["learning_rate"]))

    def _report_progress(self, now: float, step: int, learning_rate: float) -> None:
        taken, total = step - self._start_step, self.state.max_steps
        self._reporter.progress(
            step=step,
            total_steps=total,
            epoch=float(self.state.epoch or 0.0),
            loss=sum(self._losses) / len(self._losses),
            learning_rate=learning_rate,
            tokens_per_second=self._tokens * self.args.world_size / max(now - self._line_time, 1e-6),
            seconds_left=(total - step) * (now - self._start_time) / max(taken, 1),
        )
        self._tokens, self._losses, self._line_time = 0, [], now

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        clip: Any = super()._clip_grad_norm
        return clip(self._objective)  # with its heads, which are not part of the model

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        save_trained(self._objective, self._folder if output_dir is None else Path(output_dir))

    def _load_from_checkpoint(self, checkpoint_path: str, model: nn.Module | None = None) -> None:
        load_trained(self._objective, Path(checkpoint_path))

    def _init_training_state(self, *args: Any, **options: Any) -> Any:
        state = super()._init_training_state(*args, **options)
        self._start_step = self.state.global_step
        self._line_time = self._start_time = time.monotonic()
        return state

    def _save_checkpoint(self, *args: Any, **options: Any) -> None:
        self._reporter.check_ownership()  # it also removes older ones
        super()._save_checkpoint(*args, **options)
        if self.args.world_size > 1:
            distributed.barrier()  # every worker has written its part
        step = self.state.global_step
        if self.is_world_process_zero():
            mark_complete(self._folder / f"checkpoint-{step}")
            self._reporter.checkpoint(step)
        self._on_checkpoint(step, self._last_loss)
