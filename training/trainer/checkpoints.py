"""Checkpoints of a job: which ones are whole, and what a resumed job must remember besides."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from serve_app.domain.files import replace_file
from training.fsync import flush
from training.training_errors import TrainingError

WEIGHTS = "trained.safetensors"
COMPLETE = "complete"  # written last: a checkpoint without it was cut short
_MINI_BATCH = "mini_batch_size"


def newest_complete(folder: Path) -> Path | None:
    """The checkpoint to resume from; None for a job that has none."""
    whole = [path for path in folder.glob("checkpoint-*") if (path / COMPLETE).is_file()]
    return max(whole, key=step_of, default=None)


def step_of(checkpoint: Path | None) -> int:
    """Steps that were taken up to a checkpoint."""
    return 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])


def mark_complete(checkpoint: Path) -> None:
    """Says that every worker has written its part; from now on the job may be resumed from here."""
    flush(checkpoint)
    (checkpoint / COMPLETE).touch()


def remove_incomplete(folder: Path) -> None:
    """Removes what a killed process left half-written."""
    for path in folder.glob("checkpoint-*"):
        if not (path / COMPLETE).is_file():
            shutil.rmtree(path, ignore_errors=True)


def save_trained(loss: nn.Module, folder: Path) -> None:
    """Saves what the training changes: the parameters with gradients, of the model and of the loss itself."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in _trained(loss).items()}, folder / WEIGHTS)


def load_trained(loss: nn.Module, folder: Path) -> None:
    """Loads what ``save_trained`` saved into the same model.

    Raises:
        TrainingError: It belongs to another model.
    """
    saved, wanted = load_file(folder / WEIGHTS), _trained(loss)
    if saved.keys() != wanted.keys():
        other = sorted(saved.keys() ^ wanted.keys())[0]
        raise TrainingError(f"the checkpoint {folder.name} does not fit the job: {other!r} is only in one of them")
    for name, tensor in wanted.items():
        tensor.data.copy_(saved[name])


def recall_mini_batch_size(folder: Path, asked: int) -> int:
    """The mini-batch size that is known to fit into memory, else the one that was asked for."""
    path = folder / _MINI_BATCH
    return min(asked, int(path.read_text())) if path.is_file() else asked


def remember_mini_batch_size(folder: Path, size: int) -> None:
    """Spares a resumed job the out-of-memory errors that this one had."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / _MINI_BATCH, f"{size}\n".encode(), durable=False)


def _trained(loss: nn.Module) -> dict[str, nn.Parameter]:
    # distributed training wraps the model, which shows in the names only
    return {n.replace("module.", ""): p for n, p in loss.named_parameters() if p.requires_grad}
