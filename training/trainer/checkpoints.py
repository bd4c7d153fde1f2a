"""Checkpoints of a job, and the mini-batch size that a resumed job reuses."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from serve_app.domain.files import flush_folder, replace_file
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
    """Marks a checkpoint that every worker has written; from now on the job may be resumed from it."""
    flush_folder(checkpoint)
    (checkpoint / COMPLETE).touch()


def remove_incomplete(folder: Path) -> None:
    """Removes checkpoints that a killed process left half-written."""
    for path in folder.glob("checkpoint-*"):
        if not (path / COMPLETE).is_file():
            shutil.rmtree(path, ignore_errors=True)


def save_trained(loss: nn.Module, folder: Path) -> None:
    """Saves the trained parameters, of the model and of the loss itself."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in _trained(loss).items()}, folder / WEIGHTS)


def load_trained(loss: nn.Module, folder: Path) -> None:
    """Loads parameters that ``save_trained`` saved from the same model.

    Raises:
        TrainingError: It belongs to another model.
    """
    saved, parameters = load_file(folder / WEIGHTS), _trained(loss)
    if saved.keys() != parameters.keys():
        other = sorted(saved.keys() ^ parameters.keys())[0]
        raise TrainingError(f"the checkpoint {folder.name} does not fit the job: {other!r} is only in one of them")
    for name, tensor in parameters.items():
        tensor.data.copy_(saved[name])


def recall_mini_batch_size(folder: Path, requested: int) -> int:
    """The mini-batch size that is known to fit into memory, else the requested one."""
    path = folder / _MINI_BATCH
    return min(requested, int(path.read_text())) if path.is_file() else requested


def remember_mini_batch_size(folder: Path, size: int) -> None:
    """Records a mini-batch size that fits, so that a resumed job does not run out of memory again."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / _MINI_BATCH, f"{size}\n".encode(), durable=False)


def _trained(loss: nn.Module) -> dict[str, nn.Parameter]:
    # distributed training wraps the model, which shows in the names only
    return {n.replace("module.", ""): p for n, p in loss.named_parameters() if p.requires_grad}
