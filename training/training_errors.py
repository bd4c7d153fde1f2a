"""What a user can be told about a training that can not go on."""

from __future__ import annotations

import errno

from serve_app.domain.errors import ServiceError
from serve_app.models.batching.isolation import is_out_of_memory


class TrainingError(ServiceError):
    """The job can not succeed as it is; trying again would end the same way. The message is for the user."""

    code = "training_failed"


class OwnershipLostError(Exception):
    """The job is no longer this training's: it ends without a word in the job's folder, which belongs to another."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this training no longer owns its job and ends: {reason}")
        self.reason = reason

    def __reduce__(self) -> tuple[type[OwnershipLostError], tuple[str]]:
        """Survives the way between processes."""
        return type(self), (self.reason,)


OUT_OF_MEMORY = (
    "the device has too little memory for this training; use a smaller max_seq_length, LoRA instead of a full "
    "fine-tune, gradient_checkpointing, or a larger device"
)


DISK_FULL = (
    "the disk is full, or its quota used up; remove models or jobs that are not needed any more, or have more room "
    "made for the models and jobs folders, then submit the job again"
)

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_IN_WORDS = ("No space left on device", "Disk quota exceeded", *(f"code: {number}," for number in _FULL))


def is_disk_full(error: BaseException) -> bool:
    """Whether there was no room to write. Libraries that write in Rust or C++ have only words for it."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(words in str(error) for words in _FULL_IN_WORDS)


def is_cut_off(error: BaseException) -> bool:
    """Whether a driver failed because its cluster went away: that says nothing about the job, which can go on.

    A driver that outlives its cluster for a moment finds Ray's processes or the training's controller dead. The same
    is seen when a controller is killed alone, and then, too, another attempt may do better. So it is when the memory of
    a node runs out and Ray kills what needs little of it, like the controller: whose fault that is nobody knows. Where
    the workers themselves are killed for it again and again, Ray Train says so in another way.
    """
    from ray import exceptions as of_ray  # the rest of this file serves processes without Ray, too

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
    """A sentence for the record of a failed job; the log has the trace."""
    if isinstance(error, ServiceError):
        return error.message
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    if is_disk_full(error):
        return DISK_FULL
    first_line = str(error).strip().partition("\n")[0]
    return f"unexpected {type(error).__name__}: {first_line}" if first_line else f"unexpected {type(error).__name__}"
