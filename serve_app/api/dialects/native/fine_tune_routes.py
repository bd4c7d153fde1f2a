"""/fine-tune, /fine-tune-lora and /train-status: training on pairs of query and passage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.dialects.documented_errors import documented
from serve_app.api.dialects.native.fine_tune_schemas import (
    FineTuneLoraReply,
    FineTuneLoraRequest,
    FineTuneReply,
    FineTuneRequest,
    Job,
)
from serve_app.api.dialects.native.jobs_routes import job_body
from serve_app.api.dialects.native.native_errors import ErrorBody
from serve_app.api.encoding.json_stream import json_reply
from serve_app.api.fine_tune_parsing import parse_fine_tune
from serve_app.api.route_services import ServicesDep
from serve_app.api.strict_json import StrictRoute
from serve_app.domain.request_limits import FineTuneLimits
from serve_app.jobs.job_record import JobRecord
from serve_app.jobs.training_pairs import Ignored

_ERRORS = documented(
    ErrorBody,
    {
        404: "No served model has the name `base_model`.",
        409: "`model_name` is taken, by a model or by a job that has not ended.",
        413: "The body is larger than the limit.",
        422: "The body breaks the schema or a limit, or has no usable training pairs.",
        429: "Too many fine-tunes wait; see `Retry-After`.",
        503: "The job folders cannot be written, or the job tracker does not answer.",
    },
)
_LORA_ERRORS = _ERRORS | documented(ErrorBody, {400: "Q-LoRA cannot run here, or not on this model."})


router = APIRouter(tags=["fine-tuning"], route_class=StrictRoute)


@router.post("/fine-tune", response_model=FineTuneReply, responses=_ERRORS, summary="Fine-tune all weights")
async def fine_tune(services: ServicesDep, request: FineTuneRequest) -> Response:
    """Starts a fine-tune; the result is served as `model_name` once the job is completed."""
    limits = services.fine_tune_limits
    parsed, ignored = await parse_fine_tune(request, limits)
    return json_reply(_accepted(await services.jobs.submit(parsed), ignored, limits))


@router.post(
    "/fine-tune-lora", response_model=FineTuneLoraReply, responses=_LORA_ERRORS, summary="Fine-tune a LoRA adapter"
)
async def fine_tune_lora(services: ServicesDep, request: FineTuneLoraRequest) -> Response:
    """Starts a LoRA fine-tune, by default on a base in 4 bits (Q-LoRA)."""
    limits = services.fine_tune_limits
    parsed, ignored = await parse_fine_tune(request, limits)
    record = await services.jobs.submit(parsed)
    return json_reply({**_accepted(record, ignored, limits), "type": record.type})


@router.get(
    "/train-status/{job_id}",
    response_model=Job,
    responses=documented(ErrorBody, {404: "Job not found"}),
    summary="Job status",
)
async def train_status(services: ServicesDep, job_id: str) -> Response:
    """The current state of the job, as `/jobs/{job_id}`."""
    return json_reply(job_body(await services.jobs.get(job_id)))


def _accepted(record: JobRecord, ignored: Sequence[Ignored], limits: FineTuneLimits) -> dict[str, Any]:
    return {
        "job_id": record.id,
        "status": record.status,
        "model_name": record.model_name,
        "base_model": record.base_model,
        "accepted": record.accepted,
        "ignored": record.ignored,
        "ignored_lines": [{"line": line.line, "reason": line.reason} for line in ignored[: limits.max_listed]],
    }
