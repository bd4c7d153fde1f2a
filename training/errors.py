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


def reason_of(error: BaseException) -> str:
    """A sentence for the record of a failed job; the log has the trace."""
    if isinstance(error, ServiceError):
        return error.message
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    first_line = str(error).strip().partition("\n")[0]
    return f"unexpected {type(error).__name__}: {first_line}" if first_line else f"unexpected {type(error).__name__}"
