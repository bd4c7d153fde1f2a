"""/v1/fine_tuning/jobs: our jobs as OpenAI's clients speak of them, whichever route they came by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi import Request as HttpRequest
from fastapi.responses import Response

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
from serve_app.api.dialects.tolerant_request import TolerantRoute
from serve_app.api.encoding.json_stream import json_reply
from serve_app.api.error_responses import OpenAIProblem, Responses
from serve_app.api.field_patterns import EVENT_ID, EVENT_PREFIX
from serve_app.api.jobs_service import JobsProtocol
from serve_app.api.strict_json import take_body
from serve_app.domain.errors import InvalidInputError, UnavailableError
from serve_app.domain.request_limits import FineTuneLimits
from serve_app.jobs.job_record import JobRecord

_JOBS = "/v1/fine_tuning/jobs"


def _problem(description: str) -> dict[str, Any]:
    return {"model": OpenAIProblem, "description": description}


_ERRORS: Responses = {
    400: _problem("The body or a parameter breaks the schema or a limit; of files, there is nothing to learn from."),
    503: _problem("The job folders can not be written, or the job tracker does not answer."),
}
_NOT_FOUND: Responses = {404: _problem("No job has this id.")}
_CREATE: Responses = {
    400: _problem("The body breaks the schema or a limit, there is nothing to learn from, or Q-LoRA cannot run here."),
    404: _problem("No served model or no uploaded file has this name."),
    409: _problem("The result's name is taken, by a model or by a job that has not ended."),
    413: _problem("The body is larger than the limit."),
    429: _problem("Too many fine-tunes wait; `Retry-After` says when to come back."),
}
_ENDED: Responses = {409: _problem("The job has ended.")}
Limit = Annotated[int, Query(ge=1, le=100)]


def openai_fine_tuning_router(jobs: JobsProtocol, limits: FineTuneLimits) -> APIRouter:
    """The routes over a gateway."""
    router = APIRouter(tags=["OpenAI"], route_class=TolerantRoute, responses=_ERRORS)

    async def body_of(record: JobRecord) -> dict[str, Any]:
        return openai_job(record, (await jobs.specs([record.id])).get(record.id))

    @router.post(_JOBS, response_model=NewFineTuningJob, responses=_CREATE, summary="Tune a model on uploaded data")
    async def create(request: FineTuningJobRequest) -> Response:
        """Starts a fine-tune; the result is served as `fine_tuned_model` once the job has succeeded."""
        with translate_field_names(request):
            order, ignored = await parse_openai_fine_tune(request, jobs.uploads, limits)
            record = await jobs.submit(order)
            try:
                body = await body_of(record)
            except UnavailableError:  # the job is stored; a client that hears of a failure would send it again
                body = openai_job(record, None)
        told = [{"line": line.line, "reason": line.reason} for line in ignored[: limits.max_listed]]
        return json_reply({**body, "ignored_lines": told})

    @router.get(_JOBS, response_model=FineTuningJobs, responses=_NOT_FOUND, summary="All jobs, as OpenAI lists them")
    async def page(
        http: HttpRequest,
        limit: Limit = 20,
        after: Annotated[str | None, Query(description="Id of the last job of the page before.")] = None,
    ) -> Response:
        """One page of jobs, newest first."""
        if any(name.startswith("metadata") for name in http.query_params):  # ignored, it would list other jobs, too
            raise InvalidInputError("metadata: jobs can not be chosen by it here")
        records = await jobs.page(limit=limit + 1, after=after)
        specs = await jobs.specs([record.id for record in records])
        data = [openai_job(record, specs.get(record.id)) for record in records[:limit]]
        return json_reply({"object": "list", "data": data, "has_more": len(records) > limit})

    @router.get(
        _JOBS + "/{job_id}", response_model=FineTuningJob, responses=_NOT_FOUND, summary="One job, as OpenAI shows it"
    )
    async def get(job_id: str) -> Response:
        """The job as it is now."""
        return json_reply(await body_of(await jobs.get(job_id)))

    @router.post(
        _JOBS + "/{job_id}/cancel",
        response_model=FineTuningJob,
        responses=_NOT_FOUND | _ENDED,
        dependencies=[Depends(take_body)],
        summary="Stop a job, as OpenAI does",
    )
    async def cancel(job_id: str) -> Response:
        """Stops the job within ten seconds; its checkpoints stay, its name is free again."""
        return json_reply(await body_of(await jobs.cancel(job_id)))

    @router.get(
        _JOBS + "/{job_id}/events",
        response_model=FineTuningEvents,
        responses=_NOT_FOUND,
        summary="What happened, as OpenAI tells it",
    )
    async def events(
        job_id: str,
        limit: Limit = 20,
        after: Annotated[
            str | None,
            Query(pattern=EVENT_ID, description="Id of the last event of the page before."),
        ] = None,
    ) -> Response:
        """One page of the job's diary, newest first."""
        events = [*await jobs.events(job_id, after=0)]
        if after is not None:
            oldest = int(after.removeprefix(EVENT_PREFIX))
            events = [event for event in events if event.id < oldest]
        data = [openai_event(event) for event in events[: -limit - 1 : -1]]
        return json_reply({"object": "list", "data": data, "has_more": len(events) > limit})

    @router.get(
        _JOBS + "/{job_id}/checkpoints",
        response_model=FineTuningCheckpoints,
        responses=_NOT_FOUND,
        summary="The last checkpoint, or the result",
    )
    async def checkpoints(
        job_id: str,
        limit: Limit = 10,
        after: Annotated[str | None, Query(description="Id of a checkpoint: there is never one behind it.")] = None,
    ) -> Response:
        """The result of a job that has succeeded; of another one, the step from which it can go on."""
        found = openai_checkpoints(await jobs.get(job_id))
        return json_reply(_listed([] if after is not None else found[:limit]))

    return router


def _listed(data: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return {"object": "list", "data": data, "has_more": False, **ends}
