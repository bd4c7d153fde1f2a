"""The first forward of a replica: a model that does not compute prevents the start, with a clear error."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from serve_app.domain.errors import ModelLoadError, NonFiniteError, OutOfMemoryError, ServiceError
from serve_app.models.model_source import ModelSource


class Worker(Protocol):
    """A worker that runs a forward when it starts."""

    def start(self) -> Awaitable[None]:
        """Raises ``ServiceError`` if the model does not compute."""
        ...


async def first_forward(worker: Worker, source: ModelSource, dtype: str) -> None:
    """Starts the worker.

    Args:
        worker: Worker of a replica that has loaded the model.
        source: The model, for the message.
        dtype: Number format that it computes in.

    Raises:
        ModelLoadError: The model computes NaN or infinity, or its forward fails.
    """
    try:
        await worker.start()
    except NonFiniteError as error:
        wider = "" if dtype == "float32" else "choose `dtype: float32` (MODEL_DTYPE), or "
        raise ModelLoadError(
            f"the model in {source.folder} computes NaN or infinity in {dtype}; {wider}copy its weights from the "
            f"original model again"
        ) from error
    except OutOfMemoryError as error:
        raise ModelLoadError(
            f"the device has too little memory for one short text beside the model in {source.folder}; free memory or "
            f"use a larger device"
        ) from error
    except ServiceError as error:
        raise ModelLoadError(f"the model in {source.folder} does not compute: {error.message}") from error
