"""Readiness of each configured model: a forward succeeds, or its replicas report whether they are busy or broken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from serve_app.api.model_states import ModelReadiness, ReadyState
from serve_app.domain.errors import DeadlineError, QueueFullError, ServiceError, UnavailableError
from serve_app.inference.replica_caller import ReplicaCaller
from serve_app.inference.served_model import ServedModel

STATE_S = 1.5
"""Seconds of a check reserved for asking a late replica whether it is busy or broken."""

Forward = Callable[[float], Awaitable[object]]
"""Runs a short text through a model within this many seconds, or raises ``ServiceError``."""


async def state_of(served: ServedModel[Any], forward: Forward, *, serves: str, timeout_s: float) -> ModelReadiness:
    """The state of one model and its deployment, within ``timeout_s`` seconds."""
    state, reason = await _state_of(served.caller, forward, timeout_s)
    replica = served.caller.state
    return ModelReadiness(
        model=served.source.name,
        serves=serves,
        state=state,
        reason=reason,
        device=replica.device if replica else None,
        dtype=replica.dtype if replica else None,
    )


async def _state_of(caller: ReplicaCaller, forward: Forward, timeout_s: float) -> tuple[ReadyState, str | None]:
    if caller.fault is not None:
        return "down", caller.fault
    if caller.state is None:
        return "loading", "no replica has answered since the start; the model is loading"
    try:
        await forward(timeout_s - STATE_S)
    except (QueueFullError, DeadlineError):  # busy, or broken?
        try:
            await caller.require_responsive(timeout_s=STATE_S)
        except UnavailableError as error:
            return _unavailable(caller, error)
        return "busy", None
    except UnavailableError as error:
        return _unavailable(caller, error)
    except ServiceError as error:  # it answers but does not compute
        return "down", error.message
    return "ready", None


def _unavailable(caller: ReplicaCaller, error: UnavailableError) -> tuple[ReadyState, str]:
    return ("restarting", error.message) if caller.fault is None else ("down", caller.fault)


def reason_not_ready(models: Sequence[ModelReadiness]) -> str | None:
    """The reason why the service is not ready: the default model does not answer, or another is down; else None."""
    default, *others = models
    if default.state not in ("ready", "busy"):
        return f"{default.model!r} is {default.state}: {default.reason}"
    down = next((model for model in others if model.state == "down"), None)
    return None if down is None else f"{down.model!r} ({down.serves}) is down: {down.reason}"
