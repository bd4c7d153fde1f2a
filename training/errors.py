"""What a user can be told about a training that can not go on."""

from __future__ import annotations

from serve_app.domain.errors import ServiceError
from serve_app.models.isolation import is_out_of_memory


class TrainingError(ServiceError):
    """The job can not succeed as it is; trying again would end the same way. The message is for the user."""

    code = "training_failed"


OUT_OF_MEMORY = (
    "the device has too little memory for this training; use a smaller max_seq_length, LoRA instead of a full "
    "fine-tune, gradient_checkpointing, or a larger device"
)


def is_cut_off(error: BaseException) -> bool:
    """Whether a driver failed because its cluster went away: that says nothing about the job, which can go on.

    A driver that outlives its cluster for a moment finds Ray's processes or the training's controller dead. The same
    is seen when a controller is killed alone, and then, too, another attempt may do better.
    """
    from ray import exceptions as of_ray  # the rest of this file serves processes without Ray, too

    gone = (
        ConnectionError,
        of_ray.RayActorError,
        of_ray.RaySystemError,
        of_ray.LocalRayletDiedError,
        of_ray.NodeDiedError,
        of_ray.ObjectLostError,
        of_ray.RpcError,
    )
    return isinstance(error, gone)


def reason_of(error: BaseException) -> str:
    """A sentence for the record of a failed job; the log has the trace."""
    if isinstance(error, ServiceError):
        return error.message
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    first_line = str(error).strip().partition("\n")[0]
    return f"unexpected {type(error).__name__}: {first_line}" if first_line else f"unexpected {type(error).__name__}"
