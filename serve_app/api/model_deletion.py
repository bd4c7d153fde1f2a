"""Deleting a fine-tune, by whichever route."""

from __future__ import annotations

from serve_app.api.gateway import Gateway
from serve_app.api.jobs_gateway import JobsGateway
from serve_app.domain.errors import ConflictError, JobNotFoundError

IN_USE = "It is configured, or the base of another model or of a job."


async def delete_model(name: str, gateway: Gateway, jobs: JobsGateway) -> None:
    """Deletes a fine-tune; its name is free at once, and requests that are under way are answered.

    Raises:
        ModelNotFoundError: There is no fine-tune of this name.
        ConflictError: It is in use.
    """
    if (job_id := await _live_job_on(name, jobs)) is not None:
        raise ConflictError(f"{name!r} is the base of the job {job_id}; cancel that first")
    await gateway.delete_model(name)


async def _live_job_on(base: str, jobs: JobsGateway) -> str | None:
    after = None
    while True:
        try:
            page = await jobs.page(limit=100, after=after)
        except JobNotFoundError:  # the last job of the page before was deleted under us
            after = None
            continue
        if not page:
            return None
        for record in page:
            if record.base_model == base and not record.status.is_terminal:
                return record.id
        after = page[-1].id
