"""kill -9 of a replica under load: clients do not notice, and the strength comes back by itself."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.faults.load import steady_load
from tests.service import STARTER, Service

ENCODER = f"Encoder-{STARTER}"


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


async def test_no_request_fails_when_an_encoder_replica_is_killed(service: Service) -> None:
    victims: list[int] = []
    outcome = await steady_load(
        service.url, clients=16, seconds=12, midway=lambda: victims.append(kill_one(service, ENCODER))
    )
    took = seconds_until_full(service, ENCODER, 2, victims[0])
    print(f"{outcome.answered} answered; two encoders again {took + 9:.0f} s after the kill at the latest")
    assert outcome.failures == []
    assert outcome.answered > 50


async def test_at_most_one_request_in_a_thousand_fails_when_an_ingress_replica_is_killed(service: Service) -> None:
    victims: list[int] = []
    outcome = await steady_load(
        service.url, clients=16, seconds=20, midway=lambda: victims.append(kill_one(service, "Ingress"))
    )
    seconds_until_full(service, "Ingress", 2, victims[0])
    print(f"{outcome.answered} answered, failed: {outcome.failures}")
    assert len(outcome.failures) <= max(1, (outcome.answered + len(outcome.failures)) // 1000)
    assert outcome.answered > 100
