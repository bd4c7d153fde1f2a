"""/health, /livez and /readyz.

``/livez`` asks only whether this process runs. ``/readyz`` is for probes: a real forward on every configured model,
within five seconds, or a replica that says in that time that it is busy. It fails where the default model does not
answer or another one is down for good; one that is loading or restarting beside it is only named. ``/health`` is for
people and dashboards. Neither needs a key, so both share one check: its outcome is reused for a second, and asking
often costs nothing.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.dialects.native.health_schemas import Alive, Health, NotReady, Ready
from serve_app.api.encoding.json_stream import json_reply
from serve_app.api.error_responses import Problem
from serve_app.api.service import ServiceProtocol
from serve_app.api.service_results import Readiness
from serve_app.domain.errors import ServiceError, UnavailableError

_DEADLINE_S = 5.0
_SHARED_S = 1.0

_NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"model": Problem, "description": "Within five seconds neither a forward succeeded nor a replica was busy."}
}
_NONE_DOWN: dict[int | str, dict[str, Any]] = {
    503: {"model": NotReady, "description": "The default model does not answer, or another one is down."}
}


def health_router(gateway: ServiceProtocol) -> APIRouter:
    """The routes over a gateway."""
    router = APIRouter(tags=["health"])
    shared = _SharedCheck(gateway)

    @router.get("/ping", response_model=Alive, summary="The same as /livez, for balancers that ask there")
    @router.get("/livez", response_model=Alive, summary="Does this process answer?")
    async def livez() -> Response:
        """Always 200 while the process runs."""
        return json_reply({"status": "ok"})

    @router.get("/readyz", response_model=Ready, responses=_NONE_DOWN, summary="Can it serve a request now?")
    async def readyz() -> Response:
        """Runs a forward on every model, or reuses the outcome of the last second.

        200 with the state of each model, also where one is busy or loading; or 503.
        """
        readiness = await shared.state()
        models = [asdict(model) for model in readiness.models]
        if readiness.reason is None:
            return json_reply(_told(readiness) | {"models": models})
        error = _not_ready(readiness.reason)
        reply = json_reply({"detail": error.message, "code": error.code, "models": models})
        reply.status_code = error.status
        reply.headers["Retry-After"] = str(math.ceil(error.retry_after_s or 1))
        return reply

    @router.get("/health", response_model=Health, responses=_NOT_READY, summary="How is it?")
    async def health() -> Response:
        """As /readyz, without the states of the models."""
        readiness = await shared.state()
        if readiness.reason is not None:
            raise _not_ready(readiness.reason)
        return json_reply(_told(readiness))

    return router


def _told(readiness: Readiness) -> dict[str, Any]:
    fields = asdict(readiness.default)
    told = {name: fields[name] for name in Health.model_fields if name in fields}
    return {"status": "ok", "model": readiness.default.name, **told}


def _not_ready(reason: str) -> UnavailableError:
    return UnavailableError(f"not ready: {reason}")


async def _check(gateway: ServiceProtocol) -> Readiness:
    try:
        return await gateway.readiness(timeout_s=_DEADLINE_S)
    except ServiceError as error:
        raise _not_ready(error.message) from error


class _SharedCheck:
    """One check at a time, its outcome good for a moment."""

    def __init__(self, gateway: ServiceProtocol) -> None:
        self._gateway = gateway
        self._lock = asyncio.Lock()
        self._outcome: Readiness | ServiceError | None = None
        self._until = 0.0

    async def state(self) -> Readiness:
        async with self._lock:
            if time.monotonic() >= self._until:
                try:
                    self._outcome = await _check(self._gateway)
                except ServiceError as error:
                    self._outcome = error
                self._until = time.monotonic() + _SHARED_S
        assert self._outcome is not None
        if isinstance(self._outcome, ServiceError):
            raise self._outcome
        return self._outcome
