"""/jobs: fine-tuning jobs as a resource, with their events, logs and loss curve."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from serve_app.api.dialects.documented_errors import documented
from serve_app.api.dialects.native.fine_tune_schemas import Job, JobDeleted, JobEvents, JobList
from serve_app.api.dialects.native.native_errors import ErrorBody
from serve_app.api.encoding.json_stream import dumps, json_reply
from serve_app.api.jobs_protocol import JobsProtocol
from serve_app.api.route_services import ServicesDep
from serve_app.api.strict_json import take_body
from serve_app.domain.errors import JobNotFoundError, UnavailableError
from serve_app.jobs.job_record import JobRecord

_STREAM = "text/event-stream"
_POLL_S = 1.0  # between two polls
_ID_DIGITS = 16  # of 2^53; Python refuses to parse 4,301 digits
_NOT_FOUND = documented(ErrorBody, {404: "Job not found"})
_ENDED = documented(ErrorBody, {409: "The job's state does not allow it."})
_INVALID = documented(ErrorBody, {422: "A parameter is out of its bounds."})
_HIDDEN = frozenset(
    {
        "id", "submission_id", "failed_attempts", "interruptions", "checkpoint", "checkpoint_at", "published",
        "last_heartbeat_at", "stopping", "read_bytes", "events",
    }
)  # fmt: skip


def job_body(record: JobRecord) -> dict[str, Any]:
    """A job as clients see it."""
    fields = {name: value for name, value in vars(record).items() if name not in _HIDDEN}
    return {"job_id": record.id, "type": record.type, **fields}


router = APIRouter(tags=["jobs"], responses=_INVALID)


@router.get("/jobs", response_model=JobList, responses=_NOT_FOUND, summary="List jobs")
async def page(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="Id of the last job of the page before.")] = None,
) -> Response:
    """One page of jobs, newest first."""
    records = await services.jobs.page(limit=limit + 1, after=after)
    bodies = [job_body(record) for record in records[:limit]]
    return json_reply({"jobs": bodies, "has_more": len(records) > limit})


@router.get("/jobs/{job_id}", response_model=Job, responses=_NOT_FOUND, summary="Job status")
async def get(services: ServicesDep, job_id: str) -> Response:
    """The current state of the job."""
    return json_reply(job_body(await services.jobs.get(job_id)))


@router.post(
    "/jobs/{job_id}/cancel",
    response_model=Job,
    responses=_NOT_FOUND | _ENDED,
    dependencies=[Depends(take_body)],
    summary="Cancel a job",
)
async def cancel(services: ServicesDep, job_id: str) -> Response:
    """Stops the job within ten seconds; its checkpoints stay, and its name is free again."""
    return json_reply(job_body(await services.jobs.cancel(job_id)))


@router.delete("/jobs/{job_id}", response_model=JobDeleted, responses=_NOT_FOUND | _ENDED, summary="Delete a job")
async def delete(services: ServicesDep, job_id: str) -> Response:
    """Removes an ended job with its data and checkpoints; the model it made stays."""
    await services.jobs.delete(job_id)
    return json_reply({"job_id": job_id, "deleted": True})


@router.get(
    "/jobs/{job_id}/events",
    response_model=JobEvents,
    responses=_NOT_FOUND | {200: {"content": {_STREAM: {}}, "description": "The events, or a live stream of them."}},
    summary="Job events",
)
async def events(
    services: ServicesDep,
    job_id: str,
    after: Annotated[int, Query(ge=0, le=2**53, description="Only events after this one.")] = 0,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[str, Header()] = "",
) -> Response:
    """The job's events; with `Accept: text/event-stream` a live stream, progress included, until the job ends."""
    if _STREAM in accept:
        await services.jobs.get(job_id)  # an unknown job is a 404, not a broken stream
        is_ours = last_event_id.isdecimal() and len(last_event_id) <= _ID_DIGITS
        after = int(last_event_id) if is_ours else after
        return StreamingResponse(
            _stream(services.jobs, job_id, after), media_type=_STREAM, headers={"Cache-Control": "no-cache"}
        )
    events = await services.jobs.events(job_id, after=after)
    return json_reply({"events": [asdict(event) for event in events]})


@router.get(
    "/jobs/{job_id}/logs",
    response_class=Response,
    responses=_NOT_FOUND | {200: {"content": {"text/plain": {}}}},
    summary="Job logs",
)
async def logs(services: ServicesDep, job_id: str) -> PlainTextResponse:
    """The logs of all attempts, as text."""
    return PlainTextResponse(await services.jobs.logs(job_id))


@router.get(
    "/jobs/{job_id}/loss.svg",
    response_class=Response,
    responses=_NOT_FOUND | {200: {"content": {"image/svg+xml": {}}}},
    summary="Loss curve of a job",
)
async def loss_curve(services: ServicesDep, job_id: str) -> Response:
    """The loss curve as SVG; 404 until it has been drawn."""
    if (picture := await services.jobs.loss_curve(job_id)) is None:
        raise HTTPException(404, "the loss curve has not been drawn yet")
    return Response(picture, media_type="image/svg+xml", headers={"Content-Security-Policy": "sandbox"})


async def _stream(jobs: JobsProtocol, job_id: str, after: int) -> AsyncIterator[bytes]:
    """Server-sent events: ``event`` with an entry of the job's events, ``job`` with the job whenever it has changed."""
    sent: dict[str, Any] | None = None
    while True:
        try:
            record = await jobs.get(job_id)  # before the events: they then include the last one
            events = await jobs.events(job_id, after=after)
        except JobNotFoundError:  # it was deleted
            return
        except UnavailableError:  # the tracker restarts; its jobs continue, and so does the stream
            yield b": waits for the tracker\n\n"
            await asyncio.sleep(_POLL_S)
            continue
        for event in events:
            after = event.id
            yield b"id: %d\nevent: event\ndata: %s\n\n" % (event.id, dumps(asdict(event)))
        if (body := job_body(record)) != sent:
            sent = body
            yield b"event: job\ndata: %s\n\n" % dumps(body)
        if record.status.is_terminal:
            return
        yield b": alive\n\n"  # a write detects a disconnected client
        await asyncio.sleep(_POLL_S)
