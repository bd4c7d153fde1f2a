"""Several requests in one call: each gets its own answer, also if replicas are lost under it."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest

from serve_app.domain.embeddings import EncodedBatch, RequestShare, TokenBatch
from serve_app.domain.errors import QueueFullError, UnavailableError
from serve_app.inference import coalescing as module
from serve_app.inference.coalescing import BatchedCall
from serve_app.inference.replica_caller import ReplicaCaller, ReplicaLostError
from tests.unit.inference.fake_caller import FakeDeployment

DEADLY = 666


class Replicas:
    """Answers each text with its first id; a deadly text kills the replica, and with it the call.

    Attributes:
        calls: The first ids of the texts of each call.
        cancelled: Number of calls that were cancelled.
        most_at_once: Calls under way.
        gate: Closed, a call waits for it.
    """

    def __init__(self, *, lose_first: int = 0, error: BaseException | None = None, only_one: bool = False) -> None:
        """With ``only_one`` there is one replica: a deadly text takes all calls along that are under way."""
        self.calls: list[list[int]] = []
        self.cancelled = 0
        self.most_at_once = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self._lose, self._error, self._only_one = lose_first, error, only_one
        self._under_way: set[int] = set()
        self._lost: set[int] = set()

    async def encode(self, batch: TokenBatch) -> EncodedBatch:
        first = [int(row[0]) for row in batch.rows()]
        self.calls.append(first)
        number = len(self.calls)
        self._under_way.add(number)
        self.most_at_once = max(self.most_at_once, len(self._under_way))
        try:
            await self.gate.wait()
            for turn in range(6):
                await asyncio.sleep(0)
                if turn == 3 and DEADLY in first:
                    self._lost |= self._under_way if self._only_one else {number}
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self._under_way.discard(number)
        if number in self._lost or number <= self._lose:
            raise ReplicaLostError("the replicas died under this request")
        if self._error is not None:
            raise self._error
        return EncodedBatch(np.array([[each] for each in first], np.float32))


def send(replicas: Replicas, *requests: list[int]) -> BatchedCall:
    return BatchedCall(ReplicaCaller(FakeDeployment(encode=replicas.encode)), [
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
async def test_a_text_that_kills_replicas_fails_no_other_request(at: int) -> None:
    replicas = Replicas()
    requests = [[1, 2], [3], [4]]
    requests.insert(at, [DEADLY])
    found = await outcomes(send(replicas, *requests))
    assert isinstance(killer := found.pop(at), UnavailableError)
    assert "died under this request" in killer.message
    assert found == [[1, 2], [3], [4]]
    lost = [call for call in replicas.calls if DEADLY in call]
    assert len(lost) == 5, "with all, with one other, alone beside others, and twice alone"
    assert replicas.calls[-2:] == [[DEADLY]] * 2, "it does not hold up the others"


async def test_after_a_replica_is_lost_its_requests_are_sent_again_together() -> None:
    replicas = Replicas(lose_first=1)
    assert await outcomes(send(replicas, *[[i] for i in range(64)])) == [[i] for i in range(64)]
    assert replicas.calls == [[*range(64)], [*range(32)], [*range(32, 64)]]
    assert replicas.most_at_once == 2


@pytest.mark.parametrize("at", [0, 21, 63])
@pytest.mark.parametrize("requests", [2, 3, 64])
async def test_a_text_that_kills_the_only_replica_with_all_its_calls_fails_alone_after_a_few_rounds(
    requests: int, at: int
) -> None:
    replicas = Replicas(only_one=True)
    ids = list(range(requests))
    ids[at % requests] = DEADLY
    found = await outcomes(send(replicas, *[[i] for i in ids]))
    assert isinstance(found.pop(at % requests), UnavailableError)
    assert found == [[i] for i in ids if i != DEADLY]
    assert sum(DEADLY in call for call in replicas.calls) <= math.ceil(math.log2(requests)) + 3
    assert len(replicas.calls) <= 50
    assert replicas.most_at_once <= 4


@pytest.mark.parametrize("lose_first", [0, 1])
@pytest.mark.parametrize("requests", [[[1]], [[1], [2]]])
async def test_a_call_that_is_cancelled_from_inside_leaves_no_request_waiting(
    requests: list[list[int]], lose_first: int
) -> None:
    found = await outcomes(send(Replicas(lose_first=lose_first, error=asyncio.CancelledError()), *requests))
    assert [type(each) for each in found] == [UnavailableError] * len(requests)


async def test_a_lost_replica_is_no_failure_of_a_request() -> None:
    assert await outcomes(send(Replicas(lose_first=2), [1], [2])) == [[1], [2]]


async def test_an_error_of_the_deployment_reaches_every_request() -> None:
    error = QueueFullError("full")
    assert await outcomes(send(Replicas(error=error), [1], [2])) == [error, error]
    assert await outcomes(send(Replicas(lose_first=1, error=error), [1], [2])) == [error, error]


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
