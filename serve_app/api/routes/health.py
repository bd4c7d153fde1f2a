"""/health, /livez and /readyz.

``/livez`` asks only whether this process runs. ``/readyz`` is for probes: a real forward through the whole path, within
five seconds, or a replica that says in that time that it is busy. ``/health`` is for people and dashboards: the same
check, but its outcome is shared for a second, so that asking often costs nothing.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from serve_app.api.gateway import Gateway, ModelState
from serve_app.api.problems import Problem
from serve_app.api.replies import json_reply
from serve_app.api.schemas.health import Alive, Health
from serve_app.domain.errors import ServiceError, UnavailableError

_DEADLINE_S = 5.0
_SHARED_S = 1.0

_NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"model": Problem, "description": "Within five seconds neither a forward succeeded nor a replica was busy."}
}


def health_router(gateway: Gateway) -> APIRouter:
    """The routes over a gateway."""
    router = APIRouter(tags=["health"])
    shared = _SharedCheck(gateway)

    @router.get("/ping", response_model=Alive, summary="The same as /livez, for balancers that ask there")
    @router.get("/livez", response_model=Alive, summary="Does this process answer?")
    async def livez() -> Response:
        """Always 200 while the process runs."""
        return json_reply({"status": "ok"})

    @router.get("/readyz", response_model=Health, responses=_NOT_READY, summary="Can it serve a request now?")
    async def readyz() -> Response:
        """Runs a forward; 200 with the default model's state, also where it is busy with a long one, or 503."""
        return _reply(await _check(gateway))

    @router.get("/health", response_model=Health, responses=_NOT_READY, summary="How is it?")
    async def health() -> Response:
        """As /readyz, but the outcome of the last second is reused."""
        return _reply(await shared.state())

    return router


def _reply(state: ModelState) -> Response:
    fields = asdict(state)
    told = {name: fields[name] for name in Health.model_fields if name in fields}
    return json_reply({"status": "ok", "model": state.name, **told})


async def _check(gateway: Gateway) -> ModelState:
    try:
        return await gateway.check(timeout_s=_DEADLINE_S)
    except ServiceError as error:
        raise UnavailableError(f"not ready: {error.message}") from error


class _SharedCheck:
    """One check at a time, its outcome good for a moment."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._lock = asyncio.Lock()
        self._outcome: ModelState | ServiceError | None = None
        self._until = 0.0

    async def state(self) -> ModelState:
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
