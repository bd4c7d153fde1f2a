"""kill -9 of a replica under load: clients do not notice, and the strength comes back by itself."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.conftest import M3_TINY
from tests.faults.steady_load import VECTORIZE, Question, steady_load
from tests.service_process import STARTER, Service

ENCODER, RERANKER = f"Encoder-{STARTER}", f"Reranker-{M3_TINY}"
RERANK = Question(
    "/rerank",
    lambda number: {"query": f"client {number}", "candidates": ["asks", "asks again"], "model": M3_TINY},
    lambda reply: len(reply["scores"]) == 2,
)


def kill_one(service: Service, deployment: str) -> int:
    victim = service.replicas(deployment)[0]
    os.kill(victim, signal.SIGKILL)
    return victim


def seconds_until_full(service: Service, deployment: str, count: int, victim: int, timeout_s: float = 90) -> float:
    """Seconds until a deployment has ``count`` replicas without the victim again; they take load when listed."""
    began = time.monotonic()
    while time.monotonic() - began < timeout_s:
        alive = [pid for pid in service.replicas(deployment) if pid != victim]
        if len(alive) >= count:
            return time.monotonic() - began
        time.sleep(0.2)
    pytest.fail(f"{deployment} did not get back to {count} replicas within {timeout_s} s")


async def test_no_request_fails_when_a_replica_of_the_encoder_and_one_of_a_reranker_are_killed(
    service: Service,
) -> None:
    victims: list[int] = []
    outcome = await steady_load(
        service.url,
        clients=16,
        seconds=12,
        midway=lambda: victims.extend(kill_one(service, name) for name in (ENCODER, RERANKER)),
        questions=[VECTORIZE, RERANK],
    )
    took = [seconds_until_full(service, name, 2, pid) for name, pid in zip((ENCODER, RERANKER), victims, strict=True)]
    print(f"{outcome.answered} answered; two of each again {sum(took) + 9:.0f} s after the kill at the latest")
    assert outcome.failures == []
    assert min(outcome.answered.values()) > 25


async def test_at_most_one_request_in_a_thousand_fails_when_an_ingress_replica_is_killed(service: Service) -> None:
    victims: list[int] = []
    outcome = await steady_load(
        service.url, clients=16, seconds=20, midway=lambda: victims.append(kill_one(service, "Ingress"))
    )
    seconds_until_full(service, "Ingress", 2, victims[0])
    print(f"{outcome.answered} answered, failed: {outcome.failures}")
    answered = sum(outcome.answered.values())
    assert len(outcome.failures) <= max(1, (answered + len(outcome.failures)) // 1000)
    assert answered > 100
