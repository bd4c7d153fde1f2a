"""/health, /livez, /ping and /readyz.

``/livez`` reports that this process runs. ``/readyz`` is for probes: a real forward on every configured model within
five seconds, or a replica that reports in that time that it is busy. It fails if the default model does not answer or
another one is down for good; one that is loading or restarting is only named. ``/health`` is for people and
dashboards. No key is needed, so both share one check, whose outcome is reused for a second.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from serve_app.api.dialects.documented_errors import documented
from serve_app.api.dialects.native.health_schemas import Alive, Health, NotReady, Ready
from serve_app.api.dialects.native.native_errors import ErrorBody
from serve_app.api.encoding.json_stream import json_reply
from serve_app.api.inference_protocol import InferenceProtocol
from serve_app.api.model_states import Readiness
from serve_app.api.route_services import ServicesDep
from serve_app.domain.errors import ServiceError, UnavailableError

_DEADLINE_S = 5.0
_SHARED_S = 1.0

_NOT_READY = documented(ErrorBody, {503: "Within five seconds neither a forward succeeded nor a replica was busy."})
_MODEL_DOWN = documented(NotReady, {503: "The default model does not answer, or another one is down."})

router = APIRouter(tags=["health"])


@router.get("/ping", response_model=Alive, summary="Process liveness (alias of /livez)")
@router.get("/livez", response_model=Alive, summary="Process liveness")
async def livez() -> Response:
    """Always 200 while the process runs."""
    return json_reply({"status": "ok"})


@router.get("/readyz", response_model=Ready, responses=_MODEL_DOWN, summary="Service readiness")
async def readyz(services: ServicesDep, http: Request) -> Response:
    """Runs a forward on every model, or reuses the outcome of the last second.

    200 with the state of each model, also while one is busy or loading; else 503.
    """
    readiness = await _shared_check(http, services.inference).state()
    models = [asdict(model) for model in readiness.models]
    if readiness.reason is None:
        return json_reply(_health_body(readiness) | {"models": models})
    error = _not_ready(readiness.reason)
    reply = json_reply({"detail": error.message, "code": error.code, "models": models})
    reply.status_code = error.status
    reply.headers["Retry-After"] = str(math.ceil(error.retry_after_s or 1))
    return reply


@router.get("/health", response_model=Health, responses=_NOT_READY, summary="Service health")
async def health(services: ServicesDep, http: Request) -> Response:
    """As /readyz, without the states of the models."""
    readiness = await _shared_check(http, services.inference).state()
    if readiness.reason is not None:
        raise _not_ready(readiness.reason)
    return json_reply(_health_body(readiness))


def _health_body(readiness: Readiness) -> dict[str, Any]:
    fields = asdict(readiness.default)
    shown = {name: fields[name] for name in Health.model_fields if name in fields}
    return {"status": "ok", "model": readiness.default.name, **shown}


def _not_ready(reason: str) -> UnavailableError:
    return UnavailableError(f"not ready: {reason}")


class _SharedCheck:
    """One readiness check at a time, whose outcome is reused for a second."""

    def __init__(self, inference: InferenceProtocol) -> None:
        self._inference = inference
        self._lock = asyncio.Lock()
        self._outcome: Readiness | ServiceError | None = None
        self._until = 0.0

    async def state(self) -> Readiness:
        async with self._lock:
            if time.monotonic() >= self._until:
                try:
                    self._outcome = await self._inference.readiness(timeout_s=_DEADLINE_S)
                except ServiceError as error:
                    self._outcome = _not_ready(error.message)
                    self._outcome.__cause__ = error
                self._until = time.monotonic() + _SHARED_S
        assert self._outcome is not None
        if isinstance(self._outcome, ServiceError):
            raise self._outcome
        return self._outcome


def _shared_check(http: Request, inference: InferenceProtocol) -> _SharedCheck:
    """The check of this application, made on first use."""
    state = http.app.state
    if not hasattr(state, "readiness_check"):
        state.readiness_check = _SharedCheck(inference)
    check: _SharedCheck = state.readiness_check
    return check
