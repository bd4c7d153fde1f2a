"""/v1/fine_tuning/jobs: all jobs in OpenAI's form, whatever route submitted them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from serve_app.api.dialects.documented_errors import documented
from serve_app.api.dialects.openai.fine_tune_mapping import parse_openai_fine_tune, translate_field_names
from serve_app.api.dialects.openai.fine_tuning_jobs_schemas import FineTuningJobRequest
from serve_app.api.dialects.openai.job_replies import openai_checkpoints, openai_event, openai_job
from serve_app.api.dialects.openai.job_reply_schemas import (
    FineTuningCheckpoints,
    FineTuningEvents,
    FineTuningJob,
    FineTuningJobs,
    NewFineTuningJob,
)
from serve_app.api.dialects.openai.openai_errors import OpenAIErrorBody
from serve_app.api.dialects.tolerant_request import TolerantRoute
from serve_app.api.encoding.json_stream import json_reply
from serve_app.api.field_patterns import EVENT_ID, EVENT_PREFIX
from serve_app.api.route_services import Services, ServicesDep
from serve_app.api.strict_json import take_body
from serve_app.domain.errors import InvalidInputError, UnavailableError
from serve_app.jobs.job_record import JobRecord

_JOBS = "/v1/fine_tuning/jobs"


_ERRORS = documented(
    OpenAIErrorBody,
    {
        400: "The body or a parameter breaks the schema or a limit; the files have no usable training pairs.",
        503: "The job folders cannot be written, or the job tracker does not answer.",
    },
)
_NOT_FOUND = documented(OpenAIErrorBody, {404: "No job has this id."})
_CREATE = documented(
    OpenAIErrorBody,
    {
        400: "The body breaks the schema or a limit, there are no training pairs, or Q-LoRA cannot run here.",
        404: "No served model or no uploaded file has this name.",
        409: "The result's name is taken, by a model or by a job that has not ended.",
        413: "The body is larger than the limit.",
        429: "Too many fine-tunes wait; see `Retry-After`.",
    },
)
_ENDED = documented(OpenAIErrorBody, {409: "The job has ended."})
Limit = Annotated[int, Query(ge=1, le=100)]


router = APIRouter(tags=["OpenAI"], route_class=TolerantRoute, responses=_ERRORS)


async def _body_of(services: Services, record: JobRecord) -> dict[str, Any]:
    return openai_job(record, (await services.jobs.specs([record.id])).get(record.id))


@router.post(_JOBS, response_model=NewFineTuningJob, responses=_CREATE, summary="Create a fine-tuning job")
async def create(services: ServicesDep, request: FineTuningJobRequest) -> Response:
    """Starts a fine-tune; the result is served as `fine_tuned_model` once the job has succeeded."""
    with translate_field_names(request):
        parsed, ignored = await parse_openai_fine_tune(request, services.jobs.uploads, services.fine_tune_limits)
        record = await services.jobs.submit(parsed)
        try:
            body = await _body_of(services, record)
        except UnavailableError:  # the job is stored; a client that got an error would submit it again
            body = openai_job(record, None)
    listed = [{"line": line.line, "reason": line.reason} for line in ignored[: services.fine_tune_limits.max_listed]]
    return json_reply({**body, "ignored_lines": listed})


@router.get(_JOBS, response_model=FineTuningJobs, responses=_NOT_FOUND, summary="List fine-tuning jobs")
async def page(
    services: ServicesDep,
    http: HttpRequest,
    limit: Limit = 20,
    after: Annotated[str | None, Query(description="Id of the last job of the page before.")] = None,
) -> Response:
    """One page of jobs, newest first."""
    if any(name.startswith("metadata") for name in http.query_params):  # ignoring it would list other jobs, too
        raise InvalidInputError("metadata: jobs cannot be filtered by it here")
    records = await services.jobs.page(limit=limit + 1, after=after)
    specs = await services.jobs.specs([record.id for record in records])
    data = [openai_job(record, specs.get(record.id)) for record in records[:limit]]
    return json_reply({"object": "list", "data": data, "has_more": len(records) > limit})


@router.get(_JOBS + "/{job_id}", response_model=FineTuningJob, responses=_NOT_FOUND, summary="Get a fine-tuning job")
async def get(services: ServicesDep, job_id: str) -> Response:
    """The current state of the job."""
    return json_reply(await _body_of(services, await services.jobs.get(job_id)))


@router.post(
    _JOBS + "/{job_id}/cancel",
    response_model=FineTuningJob,
    responses=_NOT_FOUND | _ENDED,
    dependencies=[Depends(take_body)],
    summary="Cancel a fine-tuning job",
)
async def cancel(services: ServicesDep, job_id: str) -> Response:
    """Stops the job within ten seconds; its checkpoints stay, and its name is free again."""
    return json_reply(await _body_of(services, await services.jobs.cancel(job_id)))


@router.get(
    _JOBS + "/{job_id}/events",
    response_model=FineTuningEvents,
    responses=_NOT_FOUND,
    summary="Events of a fine-tuning job",
)
async def events(
    services: ServicesDep,
    job_id: str,
    limit: Limit = 20,
    after: Annotated[
        str | None, Query(pattern=EVENT_ID, description="Id of the last event of the page before.")
    ] = None,
) -> Response:
    """One page of the job's events, newest first."""
    events = [*await services.jobs.events(job_id, after=0)]
    if after is not None:
        oldest = int(after.removeprefix(EVENT_PREFIX))
        events = [event for event in events if event.id < oldest]
    data = [openai_event(event) for event in events[: -limit - 1 : -1]]
    return json_reply({"object": "list", "data": data, "has_more": len(events) > limit})


@router.get(
    _JOBS + "/{job_id}/checkpoints",
    response_model=FineTuningCheckpoints,
    responses=_NOT_FOUND,
    summary="Checkpoints of a fine-tuning job",
)
async def checkpoints(
    services: ServicesDep,
    job_id: str,
    limit: Limit = 10,
    after: Annotated[str | None, Query(description="Id of a checkpoint; none ever follows it.")] = None,
) -> Response:
    """The result of a job that has succeeded; else the step from which training can resume."""
    found = openai_checkpoints(await services.jobs.get(job_id))
    return json_reply(_listed([] if after is not None else found[:limit]))


def _listed(data: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return {"object": "list", "data": data, "has_more": False, **ends}
