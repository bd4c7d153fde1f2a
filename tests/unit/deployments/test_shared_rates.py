"""Counting over all replicas: through the actor while it answers, alone while it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from serve_app.deployments import shared_rates as module
from serve_app.deployments.shared_rates import RateCounter, SharedRates
from serve_app.security.api_keys import ApiKey

KEY = ApiKey("me", "0" * 64, requests_per_minute=2, tokens_per_minute=100)


class FakeActors:
    """One counter and the replicas' handles of it; calls fail while ``error`` is set, and hang with ``hangs``."""

    def __init__(self) -> None:
        self.counter = RateCounter()
        self.error: Exception | None = None
        self.hangs = False
        self.connections = 0

    def connect(self) -> Any:
        self.connections += 1
        return SimpleNamespace(
            admit=SimpleNamespace(remote=partial(self._answer, self.counter.admit)),
            charge=SimpleNamespace(remote=partial(self._answer, self.counter.charge)),
            settle=SimpleNamespace(remote=self.counter.settle),
        )

    async def _answer(self, method: Callable[..., Any], *args: Any) -> Any:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return method(*args)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


async def admitted(*replicas: SharedRates, times: int) -> int:
    return sum([not (await replica.admit(KEY, 0)).wait_s for _ in range(times) for replica in replicas])


async def test_a_limit_holds_for_all_replicas_together(clock: SimpleNamespace) -> None:
    actors = FakeActors()
    one, two = SharedRates(connect=actors.connect), SharedRates(connect=actors.connect)
    assert await admitted(one, two, times=5) == 2
    clock.now += 60
    assert await admitted(one, two, times=5) == 2
    assert actors.connections == 2


async def test_replicas_spend_from_one_limit(clock: SimpleNamespace) -> None:
    actors = FakeActors()
    one, two = SharedRates(connect=actors.connect), SharedRates(connect=actors.connect)
    assert (await one.admit(KEY, 0)).wait_s == 0
    assert await one.charge(KEY, 150, 0) == 0
    assert (await two.admit(KEY, 0)).wait_s == pytest.approx(30.6)  # until there is one token again
    assert await two.charge(KEY, 1, 0) == pytest.approx(30.6)
    one.settle(KEY, 99, 150)
    clock.now += 60
    first, second = await one.admit(KEY, 70), await two.admit(KEY, 70)
    assert (first.reserved, second.reserved) == (70, 30)


async def test_a_replica_counts_by_itself_while_the_counter_is_dead_and_reconnects_later(
    clock: SimpleNamespace,
) -> None:
    actors = FakeActors()
    rates = SharedRates(connect=actors.connect)
    actors.error = ActorDiedError()
    assert await admitted(rates, times=5) == 2
    assert await rates.charge(KEY, 500, 0) == 0
    assert actors.connections == 1
    actors.error = None
    clock.now += 4.9
    assert (await rates.admit(KEY, 0)).wait_s > 0
    assert actors.connections == 1
    clock.now += 0.2
    assert (await rates.admit(KEY, 0)).wait_s == 0  # the counter knows nothing of what was counted without it
    assert actors.connections == 2


async def test_a_hanging_counter_delays_a_request_only_briefly(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ANSWER_S", 0.01)
    actors = FakeActors()
    actors.hangs = True
    rates = SharedRates(connect=actors.connect)
    assert await admitted(rates, times=5) == 2
    assert actors.connections == 1


async def test_requests_are_served_if_the_counter_cannot_be_created(clock: SimpleNamespace) -> None:
    def connect() -> Any:
        raise RuntimeError("no cluster")

    rates = SharedRates(connect=connect)
    assert await admitted(rates, times=5) == 2
