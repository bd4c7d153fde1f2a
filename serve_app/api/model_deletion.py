"""Deleting a fine-tune, by whichever route."""

from __future__ import annotations

from serve_app.api.gateway import Gateway
from serve_app.api.jobs_gateway import JobsGateway
from serve_app.domain.errors import ConflictError

IN_USE = "It is configured, or the base of another model or of a job."


async def delete_model(name: str, gateway: Gateway, jobs: JobsGateway) -> None:
    """Deletes a fine-tune; its name is free at once, and requests that are under way are answered.

    Raises:
        ModelNotFoundError: There is no fine-tune of this name.
        ConflictError: It is in use.
    """
    for record in await jobs.live():
        if record.base_model == name:
            raise ConflictError(f"{name!r} is the base of the job {record.id}; cancel that first")
    await gateway.delete_model(name)
