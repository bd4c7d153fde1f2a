"""Steady load whose every request counts: no retries, one line for each failure.

aiohttp writes head and body of a small request at once. That matters when an ingress replica is killed: the
proxy can send a request to another one only if it had all of it before it began to forward it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp


@dataclass(frozen=True)
class Question:
    """A request that is asked again and again.

    Attributes:
        path: Of the route.
        body: From the number of the client.
        answered: Whether the body of a reply is an answer.
    """

    path: str
    body: Callable[[int], dict[str, Any]]
    answered: Callable[[Any], bool]


VECTORIZE = Question(
    "/vectorize", lambda number: {"text": f"client {number} asks again"}, lambda reply: len(reply["vector"]) == 384
)


@dataclass
class Outcome:
    """What the clients saw.

    Attributes:
        answered: Good answers, by path.
        failures: One line for everything else.
        longest_s: The longest wait for a good answer.
    """

    answered: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    longest_s: float = 0.0


async def steady_load(
    url: str,
    *,
    clients: int,
    seconds: float,
    midway: Callable[[], Awaitable[None] | None],
    after_s: float = 3.0,
    questions: Sequence[Question] = (VECTORIZE,),
    pause_s: float = 0.0,
) -> Outcome:
    """``clients`` closed loops, the questions spread over them, with a pause after each answer.

    ``midway`` is called once, ``after_s`` seconds in. The load lasts ``seconds``; where ``midway`` returns an
    awaitable, it lasts at least until ``after_s`` seconds after the end of that.
    """
    outcome = Outcome({question.path: 0 for question in questions})
    stop_at = time.monotonic() + seconds
    disturbed = asyncio.Event()

    async def loop(client: aiohttp.ClientSession, number: int) -> None:
        question = questions[number % len(questions)]
        while time.monotonic() < stop_at or not disturbed.is_set():
            asked_at = time.monotonic()
            try:
                async with client.post(url + question.path, json=question.body(number)) as reply:
                    body = await reply.json()
            except (aiohttp.ClientError, TimeoutError) as error:
                outcome.failures.append(repr(error))
                continue
            if reply.status == 200 and question.answered(body):
                outcome.answered[question.path] += 1
                outcome.longest_s = max(outcome.longest_s, time.monotonic() - asked_at)
            else:
                outcome.failures.append(f"{reply.status} {body}")
            await asyncio.sleep(pause_s)

    async def disturb() -> None:
        await asyncio.sleep(after_s)
        try:
            if (over := midway()) is not None:
                await over
                await asyncio.sleep(after_s)
        finally:
            disturbed.set()

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as client:
        await asyncio.gather(disturb(), *(loop(client, i) for i in range(clients)))
    return outcome
