"""Readiness of every model, with fake deployments."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from serve_app.api.model_states import Readiness
from serve_app.domain.embeddings import EncodedBatch, TokenBatch
from serve_app.domain.errors import DeadlineError, NonFiniteError, QueueFullError, ServiceError, UnavailableError
from serve_app.domain.request_limits import Limits
from serve_app.inference.inference_service import InferenceService
from serve_app.inference.model_registry import ModelRegistry
from serve_app.inference.replica_caller import ReplicaCaller, ReplicaState
from serve_app.inference.served_model import ServedModel
from serve_app.models.model_source import describe
from tests.unit.inference.fake_caller import FakeDeployment

WORKS = ReplicaState("cpu", "float32", 1)
HANGS = ReplicaState("cpu", "float32", 1, is_stuck=True)


class Caller(ReplicaCaller):
    """A deployment in some state; its forward ends with ``outcome``."""

    def __init__(self, outcome: ServiceError | None = None, *, state: ReplicaState | None = WORKS,
                 now: ReplicaState | None = WORKS, answered: bool = True, failed: bool = False) -> None:  # fmt: skip
        async def ask() -> ReplicaState:
            if now is None:
                raise RuntimeError("no replica answers")
            return now

        super().__init__(FakeDeployment(state=ask))
        self.state = state
        self._failed = failed
        if answered:
            self._answered.set()
        self.outcome = outcome

    async def encode(self, batch: TokenBatch, *, timeout_s: float) -> EncodedBatch:
        await asyncio.sleep(0)
        if self.outcome is not None:
            raise self.outcome
        return EncodedBatch(np.zeros((1, 4), np.float32))


Ask = Callable[..., Awaitable[Readiness]]


@pytest.fixture
def ask(e5_tiny: Path) -> Ask:
    async def readiness(*callers: Caller, reranker: Caller | None = None) -> Readiness:
        def served(name: str, caller: Caller) -> Any:
            source = describe(name, e5_tiny, family="e5")
            return ServedModel(source, source.profile.capabilities, caller)

        models = {f"model-{i}": served(f"model-{i}", caller) for i, caller in enumerate(callers)}
        rerankers = {"ranker": served("ranker", reranker)} if reranker else {}

        async def forward(served: Any, _timeout_s: float) -> None:
            await served.caller.encode(None, timeout_s=1.0)

        others: Any = SimpleNamespace(
            models=ModelRegistry(rerankers, e5_tiny), rerank=None, explain=None, forward=forward
        )
        gateway = InferenceService(ModelRegistry(models, e5_tiny), others, e5_tiny, Limits(), None)  # type: ignore[arg-type]
        return await gateway.readiness(timeout_s=5.0)

    return readiness


STATES: list[tuple[Caller, str, str | None]] = [
    (Caller(), "ready", None),
    (Caller(QueueFullError("full")), "busy", None),
    (Caller(DeadlineError("late")), "busy", None),
    (Caller(state=None, answered=False), "loading", "the model is loading"),
    (Caller(UnavailableError("its replicas died")), "restarting", "its replicas died"),
    (Caller(DeadlineError("late"), now=HANGS), "restarting", "a forward hangs"),
    (Caller(DeadlineError("late"), now=None), "restarting", "no replica"),
    (Caller(state=None), "down", "no replica has answered for 30 s"),
    (Caller(state=None, answered=False, failed=True), "down", "its deployment failed"),
    (Caller(NonFiniteError("no numbers")), "down", "no numbers"),
]


@pytest.mark.parametrize(("caller", "state", "reason"), STATES)
async def test_each_models_state_is_reported_and_only_some_fail_the_service(
    ask: Ask, caller: Caller, state: str, reason: str | None
) -> None:
    alone, second = await ask(caller), await ask(Caller(), caller)
    reranks = await ask(Caller(), reranker=caller)
    for model in (alone.models[0], second.models[1], reranks.models[1]):
        assert model.state == state
        assert (model.reason is None) == (reason is None)
        assert reason is None or reason in (model.reason or "")
    assert [model.serves for model in reranks.models] == ["embed", "rerank"]
    assert (alone.reason is None) == (state in ("ready", "busy")), "the default model must answer"
    assert (second.reason is None) == (state != "down"), "another one may load or restart beside it"
    assert (reranks.reason is None) == (state != "down")
    if state == "down":
        assert second.reason == f"'model-1' (embed) is down: {second.models[1].reason}"


async def test_models_are_asked_at_the_same_time(ask: Ask) -> None:
    meet = asyncio.Barrier(2)

    class Waits(Caller):
        async def encode(self, batch: TokenBatch, *, timeout_s: float) -> EncodedBatch:
            await meet.wait()
            return await super().encode(batch, timeout_s=timeout_s)

    assert (await asyncio.wait_for(ask(Waits(), Waits()), 5)).reason is None
