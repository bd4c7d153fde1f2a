"""Errors that end a training, with messages for the user."""

from __future__ import annotations

import errno

from serve_app.domain.errors import ServiceError
from serve_app.models.batching.isolation import is_out_of_memory


class TrainingError(ServiceError):
    """The job cannot succeed; another attempt would end the same way. The message is for the user."""

    code = "training_failed"


class OwnershipLostError(Exception):
    """The training no longer owns the job: it ends and writes nothing into the job's folder."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this training no longer owns its job and ends: {reason}")
        self.reason = reason

    def __reduce__(self) -> tuple[type[OwnershipLostError], tuple[str]]:
        """Allows pickling."""
        return type(self), (self.reason,)


OUT_OF_MEMORY = (
    "the device has too little memory for this training; use a smaller max_seq_length, LoRA instead of a full "
    "fine-tune, gradient_checkpointing, or a larger device"
)


DISK_FULL = (
    "the disk is full, or its quota is used up; delete models or jobs, or make more room for the models and jobs "
    "folders, then submit the job again"
)

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_IN_WORDS = ("No space left on device", "Disk quota exceeded", *(f"code: {number}," for number in _FULL))


def is_disk_full(error: BaseException) -> bool:
    """True if there was no room to write; libraries in Rust or C++ report it in their message only."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(words in str(error) for words in _FULL_IN_WORDS)


def is_cut_off(error: BaseException) -> bool:
    """True if a driver failed because its cluster was lost; another attempt of the job may succeed.

    A driver that outlives its cluster for a moment finds Ray's processes or the training's controller gone. The same
    errors appear if the controller alone is killed, for instance because a node runs out of memory. If the workers
    themselves are killed for that repeatedly, Ray Train raises another error.
    """
    from ray import exceptions as of_ray  # processes without Ray use the rest of this module

    gone = (
        ConnectionError,
        of_ray.RayActorError,
        of_ray.RaySystemError,
        of_ray.LocalRayletDiedError,
        of_ray.NodeDiedError,
        of_ray.ObjectLostError,
        of_ray.OutOfMemoryError,
        of_ray.RpcError,
    )
    return isinstance(error, gone)


def reason_of(error: BaseException) -> str:
    """A sentence for the record of a failed job; the log has the traceback."""
    if isinstance(error, ServiceError):
        return error.message
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    if is_disk_full(error):
        return DISK_FULL
    first_line = str(error).strip().partition("\n")[0]
    return f"unexpected {type(error).__name__}: {first_line}" if first_line else f"unexpected {type(error).__name__}"
