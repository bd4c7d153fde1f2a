"""Steady load whose every request counts: no retries, one line for each failure.

aiohttp writes head and body of a small request at once. That matters when an ingress replica is killed: the
proxy can send a request to another one only if it had all of it before it began to forward it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp


@dataclass
class Outcome:
    """What the clients saw."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)


async def steady_load(
    url: str, *, clients: int, seconds: float, midway: Callable[[], None], after_s: float = 3.0
) -> Outcome:
    """``clients`` closed loops of small requests; ``midway`` is called once, ``after_s`` seconds in."""
    outcome = Outcome()
    stop_at = time.monotonic() + seconds

    async def loop(client: aiohttp.ClientSession, number: int) -> None:
        while time.monotonic() < stop_at:
            try:
                async with client.post(f"{url}/vectorize", json={"text": f"client {number} asks again"}) as reply:
                    body = await reply.json()
            except (aiohttp.ClientError, TimeoutError) as error:
                outcome.failures.append(repr(error))
                continue
            if reply.status == 200 and len(body["vector"]) == 384:
                outcome.answered += 1
            else:
                outcome.failures.append(f"{reply.status} {body}")

    async def disturb() -> None:
        await asyncio.sleep(after_s)
        midway()

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as client:
        await asyncio.gather(disturb(), *(loop(client, i) for i in range(clients)))
    return outcome
