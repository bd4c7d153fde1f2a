"""/fine-tune, /fine-tune-lora and /train-status: a model of one's own from pairs of query and passage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.dialects.native.fine_tune_schemas import (
    FineTuneLoraReply,
    FineTuneLoraRequest,
    FineTuneReply,
    FineTuneRequest,
    Job,
)
from serve_app.api.dialects.native.jobs_routes import job_body
from serve_app.api.encoding.json_stream import json_reply
from serve_app.api.error_responses import Problem
from serve_app.api.fine_tune_parsing import parse_fine_tune
from serve_app.api.jobs_service import JobsProtocol
from serve_app.api.strict_json import StrictRoute
from serve_app.domain.request_limits import FineTuneLimits
from serve_app.jobs.job_record import JobRecord
from serve_app.jobs.training_pairs import Ignored

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        404: "No served model has the name `base_model`.",
        409: "`model_name` is taken, by a model or by a job that has not ended.",
        413: "The body is larger than the limit.",
        422: "The body breaks the schema or a limit, or holds nothing to learn from.",
        429: "Too many fine-tunes wait; `Retry-After` says when to come back.",
        503: "The job folders can not be written, or the job tracker does not answer.",
    }.items()
}
_LORA_ERRORS = _ERRORS | {400: {"model": Problem, "description": "Q-LoRA can not run here, or not on this model."}}


def fine_tuning_router(jobs: JobsProtocol, limits: FineTuneLimits) -> APIRouter:
    """The routes over a gateway."""
    router = APIRouter(tags=["fine-tuning"], route_class=StrictRoute)

    @router.post("/fine-tune", response_model=FineTuneReply, responses=_ERRORS, summary="Tune all weights")
    async def fine_tune(request: FineTuneRequest) -> Response:
        """Starts a fine-tune; the result is served as `model_name` once the job is completed."""
        order, ignored = await parse_fine_tune(request, limits)
        return json_reply(_accepted(await jobs.submit(order), ignored, limits))

    @router.post("/fine-tune-lora", response_model=FineTuneLoraReply, responses=_LORA_ERRORS, summary="Tune an adapter")
    async def fine_tune_lora(request: FineTuneLoraRequest) -> Response:
        """Starts a LoRA fine-tune, by default on a base in 4 bits (Q-LoRA)."""
        order, ignored = await parse_fine_tune(request, limits)
        record = await jobs.submit(order)
        return json_reply({**_accepted(record, ignored, limits), "type": record.type})

    @router.get(
        "/train-status/{job_id}",
        response_model=Job,
        responses={404: {"model": Problem, "description": "Job not found"}},
        summary="How far is it?",
    )
    async def train_status(job_id: str) -> Response:
        """The job as it is now; the same as `/jobs/{job_id}`."""
        return json_reply(job_body(await jobs.get(job_id)))

    return router


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
