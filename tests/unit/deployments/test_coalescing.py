"""Several requests in one call: each gets its own answer, also if replicas are lost under it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError

from serve_app.deployments import coalescing as module
from serve_app.deployments.calls import ReplicaCaller
from serve_app.deployments.coalescing import BatchedCall
from serve_app.domain.embeddings import EncodedBatch, RequestShare, TokenBatch
from serve_app.domain.errors import QueueFullError, UnavailableError

DEADLY = 666


class Replicas:
    """Answers each text with its first id; a deadly text kills the replica, and with it the call."""

    def __init__(self, *, lose_first: int = 0, error: Exception | None = None) -> None:
        self.calls: list[list[int]] = []
        self.cancelled = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self._lose, self._error = lose_first, error

    async def encode(self, batch: TokenBatch) -> EncodedBatch:
        first = [int(row[0]) for row in batch.rows()]
        self.calls.append(first)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if DEADLY in first or len(self.calls) <= self._lose:
            raise ActorDiedError
        if self._error is not None and len(self.calls) > self._lose:
            raise self._error
        return EncodedBatch(np.array([[each] for each in first], np.float32))


def send(replicas: Replicas, *requests: list[int]) -> BatchedCall:
    handle: Any = SimpleNamespace(encode=SimpleNamespace(remote=replicas.encode))
    return BatchedCall(ReplicaCaller(handle), [
        TokenBatch.of_rows([np.array([i, 5], np.int32) for i in ids], (RequestShare(key, len(ids), 10.0),))
        for key, ids in enumerate(requests)
    ])  # fmt: skip


async def outcomes(call: BatchedCall) -> list[list[float] | BaseException]:
    done = await asyncio.wait_for(asyncio.gather(*call.answers, return_exceptions=True), 10)
    return [each if isinstance(each, BaseException) else each.dense[:, 0].tolist() for each in done]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)


async def test_requests_of_one_call_get_their_own_rows() -> None:
    replicas = Replicas()
    assert await outcomes(send(replicas, [1, 2], [3], [4, 5, 6])) == [[1, 2], [3], [4, 5, 6]]
    assert replicas.calls == [[1, 2, 3, 4, 5, 6]]


@pytest.mark.parametrize("at", [0, 1, 3])
async def test_a_text_that_kills_replicas_takes_no_other_request_along(at: int) -> None:
    replicas = Replicas()
    requests = [[1, 2], [3], [4]]
    requests.insert(at, [DEADLY])
    found = await outcomes(send(replicas, *requests))
    assert isinstance(killer := found.pop(at), UnavailableError)
    assert "died under this request" in killer.message
    assert found == [[1, 2], [3], [4]]
    alone = replicas.calls[1:]
    assert [call for call in alone if call != [DEADLY]] == [[1, 2], [3], [4]], "one after the other, each once"
    assert alone.count([DEADLY]) == 3
    assert alone[-2:] == [[DEADLY]] * 2, "it does not hold up the others"


async def test_a_lost_replica_is_no_failure_of_a_request() -> None:
    assert await outcomes(send(Replicas(lose_first=2), [1], [2])) == [[1], [2]]


async def test_an_error_of_the_deployment_reaches_every_request() -> None:
    error = QueueFullError("full")
    assert await outcomes(send(Replicas(error=error), [1], [2])) == [error, error]
    assert await outcomes(send(Replicas(lose_first=1, error=error), [1], [2])) == [error, error]


@pytest.mark.parametrize("requests", [[[1]], [[1], [2]]])
@pytest.mark.parametrize("lose_first", [0, 1])
async def test_a_call_that_is_cancelled_from_within_leaves_no_request_waiting(
    requests: list[list[int]], lose_first: int
) -> None:
    cancelled: Any = asyncio.CancelledError()
    found = await outcomes(send(Replicas(lose_first=lose_first, error=cancelled), *requests))
    assert [type(each) for each in found] == [UnavailableError] * len(requests)


async def test_a_call_is_cancelled_when_the_last_request_is_withdrawn() -> None:
    replicas = Replicas()
    replicas.gate.clear()
    call = send(replicas, [1], [2])
    await asyncio.sleep(0)
    for answer, cancelled in zip(call.answers, (0, 1), strict=True):
        answer.cancel()
        for _ in range(4):
            await asyncio.sleep(0)
        assert replicas.cancelled == cancelled


async def test_a_withdrawn_request_is_not_sent_again() -> None:
    replicas = Replicas(lose_first=1)
    replicas.gate.clear()
    call = send(replicas, [1], [2])
    await asyncio.sleep(0)
    call.answers[0].cancel()
    replicas.gate.set()
    assert (await asyncio.wait_for(call.answers[1], 10)).dense.tolist() == [[2.0]]
    assert replicas.calls == [[1, 2], [2]]
