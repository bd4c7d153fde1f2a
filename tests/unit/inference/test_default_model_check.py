"""The check of the default model: a forward succeeds, or a replica reports whether it is busy or broken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError

from serve_app.domain.embeddings import EncodedBatch, ItemFailure, TokenBatch
from serve_app.domain.errors import DeadlineError, NonFiniteError, QueueFullError, ServiceError, UnavailableError
from serve_app.domain.request_limits import Limits
from serve_app.inference import inference_service as gateway_module
from serve_app.inference.inference_service import InferenceService
from serve_app.inference.model_registry import ModelRegistry
from serve_app.inference.replica_caller import ReplicaCaller, ReplicaState
from serve_app.inference.served_model import ServedModel
from serve_app.models.model_source import describe
from tests.unit.inference.fake_caller import FakeDeployment

BUSY = ReplicaState("cpu", "float32", 1)
HANGS = ReplicaState("cpu", "float32", 1, is_stuck=True)
CHECK_S = 5.0


class Caller(ReplicaCaller):
    """Its forward ends with ``outcome``; asked for its state, a replica gives ``state``."""

    def __init__(self, outcome: ServiceError | None, state: Callable[[], Awaitable[ReplicaState]]) -> None:
        super().__init__(FakeDeployment(state=state))
        self.outcome = outcome
        self.timeout_s = 0.0

    async def encode(self, batch: TokenBatch, *, timeout_s: float) -> EncodedBatch:
        self.timeout_s = timeout_s
        if isinstance(self.outcome, DeadlineError):  # of the call, others are of the text
            raise self.outcome
        failures = () if self.outcome is None else (ItemFailure.of(0, self.outcome),)
        return EncodedBatch(np.zeros((1, 4), np.float32), failures)


async def check(folder: Path, outcome: ServiceError | None, state: Callable[[], Awaitable[ReplicaState]]) -> Caller:
    """Asks a gateway whether it is ready."""
    source = describe("tiny", folder, family="e5")
    caller = Caller(outcome, state)
    served: Any = ServedModel(source, source.profile.capabilities, caller)
    nothing: Any = SimpleNamespace(models=ModelRegistry({}, folder), rerank=None, explain=None)
    gateway = InferenceService(ModelRegistry({"tiny": served}, folder), nothing, folder, Limits(), nothing)
    assert (await gateway.check(timeout_s=CHECK_S)).name == "tiny"
    return caller


async def busy() -> ReplicaState:
    return BUSY


async def hangs() -> ReplicaState:
    return HANGS


async def dead() -> ReplicaState:
    raise ActorDiedError


async def silent() -> ReplicaState:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "STATE_S", 0.05)


async def test_after_a_forward_no_replica_is_asked(e5_tiny: Path) -> None:
    await check(e5_tiny, None, dead)


@pytest.mark.parametrize("outcome", [DeadlineError("late"), QueueFullError("full")])
async def test_busy_is_not_broken_and_all_is_known_within_the_time(e5_tiny: Path, outcome: ServiceError) -> None:
    caller = await check(e5_tiny, outcome, busy)
    assert caller.timeout_s + gateway_module.STATE_S == CHECK_S


@pytest.mark.parametrize("outcome", [DeadlineError("late"), QueueFullError("full")])
@pytest.mark.parametrize(
    ("state", "message"), [(hangs, "a forward hangs"), (dead, "no replica"), (silent, "no replica")]
)
async def test_a_replica_that_hangs_or_is_dead_is_broken(
    e5_tiny: Path, outcome: ServiceError, state: Callable[[], Awaitable[ReplicaState]], message: str
) -> None:
    with pytest.raises(UnavailableError, match=message):
        await asyncio.wait_for(check(e5_tiny, outcome, state), CHECK_S)


async def test_a_model_that_does_not_compute_is_broken_even_if_its_replica_answers(e5_tiny: Path) -> None:
    with pytest.raises(NonFiniteError):
        await check(e5_tiny, NonFiniteError("broken weights"), busy)
