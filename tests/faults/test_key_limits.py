"""The limits of an API key hold for both HTTP replicas together, however many clients share the key."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
import httpx

from tests.conftest import E5_TINY
from tests.keyed import FEW_REQUESTS, FEW_TOKENS, KEYS, REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE, USE, bearer
from tests.service_process import Service

CLIENTS = 12  # connections of their own, so both replicas are asked
SECONDS, MOST_SECONDS = 3.0, 60.0


@dataclass(frozen=True)
class Seen:
    """Answers to one key.

    Attributes:
        allowed: How many had status 200.
        waits: ``Retry-After`` of every 429.
        other: Every other status.
        took_s: From the first request to the last answer.
    """

    allowed: int
    waits: Sequence[int]
    other: Sequence[int]
    took_s: float


async def hammer(url: str, key: str, text: str, clients: int = CLIENTS, *, until_refused: bool = False) -> Seen:
    """Asks without a pause for some seconds, each client on a connection of its own.

    A machine that is too slow to meet the limit in that time goes on until it does.
    """
    statuses: list[int] = []
    waits: list[int] = []
    began = time.monotonic()

    async def loop() -> None:
        async with aiohttp.ClientSession(headers=bearer(key), timeout=aiohttp.ClientTimeout(30)) as client:
            while time.monotonic() - began < (MOST_SECONDS if until_refused and not waits else SECONDS):
                async with client.post(f"{url}/vectorize", json={"text": text}) as reply:
                    await reply.read()
                    statuses.append(reply.status)
                    if reply.status == 429:
                        waits.append(int(reply.headers["Retry-After"]))
                        await asyncio.sleep(0.02)

    await asyncio.gather(*(loop() for _ in range(clients)))
    other = [status for status in statuses if status not in {200, 429}]
    return Seen(statuses.count(200), waits, other, time.monotonic() - began)


async def replicas_that_allowed(service: Service, name: str) -> int:
    """HTTP replicas whose log says that they let a request of a key in; their logs are flushed every second."""
    await asyncio.sleep(1.5)
    line = f"API key {name}: POST /vectorize 200".encode()
    return sum("Ingress" in log.name and line in log.read_bytes() for log in service.logs())


async def test_requests_a_minute_are_counted_over_both_replicas_and_for_one_key_only(exposed: Service) -> None:
    limited, free = await asyncio.gather(
        hammer(exposed.url, FEW_REQUESTS, "a request that is counted", until_refused=True),
        hammer(exposed.url, USE, "a request that is not", clients=2),
    )
    # a full bucket, what flows in meanwhile, and one for the clocks; counted apart, two replicas would allow twice that
    most = REQUESTS_PER_MINUTE + limited.took_s * REQUESTS_PER_MINUTE / 60 + 1
    print(f"{limited.allowed} allowed in {limited.took_s:.1f} s, at most {most:.0f}; another key: {free.allowed}")
    assert REQUESTS_PER_MINUTE <= limited.allowed <= most
    assert limited.other == []
    assert limited.waits
    assert set(limited.waits) == {1}  # one flows in every second
    assert (free.waits, free.other) == ([], [])
    assert free.allowed > 0
    assert await replicas_that_allowed(exposed, KEYS[FEW_REQUESTS].name) == 2


async def test_tokens_a_minute_are_counted_over_both_replicas_and_for_one_key_only(exposed: Service) -> None:
    text = "seven words that cost some tokens " * 8
    body = {"model": E5_TINY, "input": text}
    async with httpx.AsyncClient(base_url=exposed.url, headers=bearer(USE), timeout=30) as client:
        cost = (await client.post("/v1/embeddings", json=body)).json()["usage"]["prompt_tokens"]
    limited, free = await asyncio.gather(
        hammer(exposed.url, FEW_TOKENS, text, until_refused=True), hammer(exposed.url, USE, text, clients=2)
    )
    budget = TOKENS_PER_MINUTE * (1 + limited.took_s / 60)
    print(f"{limited.allowed} texts of {cost} tokens in {limited.took_s:.1f} s, budget {budget:.0f}")
    # requests under way hold an estimate, so the first refusal comes a little early; one request may be on credit
    assert TOKENS_PER_MINUTE // (cost + 2) - CLIENTS <= limited.allowed <= math.ceil(budget / (cost - 2)) + 1
    assert limited.other == []
    assert limited.waits
    assert min(limited.waits) >= 1
    assert (free.waits, free.other) == ([], [])
