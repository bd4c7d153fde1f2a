"""Deletion of a fine-tune, shared by the routes of two dialects."""

from __future__ import annotations

from serve_app.api.inference_protocol import InferenceProtocol
from serve_app.api.jobs_protocol import JobsProtocol
from serve_app.domain.errors import ModelNotFoundError
from serve_app.domain.model_names import shown, spellings

IN_USE = "The model is configured, or the base of another model or of a job."


async def delete_model(name: str, inference: InferenceProtocol, jobs: JobsProtocol) -> str:
    """Deletes a fine-tune; its name is free at once; requests in flight are answered.

    Args:
        name: As the client wrote it, perhaps with a provider's prefix.
        inference: Manages the models.
        jobs: Manages the jobs that may need them.

    Returns:
        The name without the prefix.

    Raises:
        ModelNotFoundError: No fine-tune has this name.
        ConflictError: It is in use.
    """
    jobs_by_base = {record.base_model: record.id for record in await jobs.live()}
    missing: ModelNotFoundError | None = None
    for spelling in spellings(name, {}):
        try:
            await inference.delete_model(spelling, jobs_by_base)
        except ModelNotFoundError as error:
            missing = missing or error
            continue
        return spelling
    raise missing or ModelNotFoundError(f"no fine-tune {shown(name)} is here; GET /models lists those that are")
