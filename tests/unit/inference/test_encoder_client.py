"""Large requests: chunks, retries, refusals. (Small ones need a replica around them: tests/integration.)"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from serve_app.domain.embeddings import EncodedBatch, ItemFailure, TokenBatch
from serve_app.domain.errors import DeadlineError, NonFiniteError, QueueFullError, UnavailableError
from serve_app.inference.encoder_client import EncoderClient
from serve_app.inference.replica_caller import ReplicaLostError, ReplicaState
from tests.unit.inference.fake_caller import FakeDeployment, never

Encode = Callable[[TokenBatch], Awaitable[EncodedBatch]]


def answer(batch: TokenBatch) -> EncodedBatch:
    """One-dimensional vectors: each text's first id."""
    return EncodedBatch(np.array([[row[0]] for row in batch.rows()], np.float32))


def refusal(batch: TokenBatch) -> EncodedBatch:
    failures = tuple(ItemFailure(i, "queue_full", "full", 0.01) for i in range(len(batch.lengths)))
    return EncodedBatch(np.zeros((len(batch.lengths), 1), np.float32), failures)


def client_of(encode: Encode) -> EncoderClient:
    client = EncoderClient(FakeDeployment(encode=encode), never)
    client.state = ReplicaState("cpu", "float32", 1)
    return client


def long_request(texts: int = 100, length: int = 500) -> TokenBatch:
    """More than one chunk; each text's ids are its index."""
    return TokenBatch.of_rows([np.full(length, i, np.int32) for i in range(texts)])


async def test_chunks_come_back_in_the_order_of_the_texts() -> None:
    calls = []

    async def encode(batch: TokenBatch) -> EncodedBatch:
        calls.append(batch)
        await asyncio.sleep(0.02 / len(calls))  # later chunks answer first
        return answer(batch)

    vectors = (await client_of(encode).encode(long_request(), timeout_s=10)).dense
    assert vectors[:, 0].tolist() == list(range(100))
    assert len(calls) > 4
    assert all(call.tokens <= 8192 for call in calls)
    assert len({call.shares[0].key for call in calls}) == 1, "all chunks are one request to the scheduler"


async def test_at_most_four_chunks_of_a_request_are_under_way() -> None:
    under_way = most = 0

    async def encode(batch: TokenBatch) -> EncodedBatch:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= 1
        return answer(batch)

    await client_of(encode).encode(long_request(400), timeout_s=10)
    assert most == 4


async def test_a_chunk_whose_replica_died_is_sent_again() -> None:
    attempts = 0

    async def encode(batch: TokenBatch) -> EncodedBatch:
        nonlocal attempts
        attempts += 1
        if attempts in {2, 3}:
            raise ReplicaLostError("the replicas died under this request")
        return answer(batch)

    vectors = (await client_of(encode).encode(long_request(), timeout_s=10)).dense
    assert vectors[:, 0].tolist() == list(range(100))


async def test_when_every_attempt_dies_the_request_fails_as_unavailable() -> None:
    async def encode(_: TokenBatch) -> EncodedBatch:
        raise ReplicaLostError("the replicas died under this request")

    with pytest.raises(UnavailableError, match="died under this request"):
        await client_of(encode).encode(long_request(), timeout_s=10)


async def test_the_deadline_of_chunks_names_the_seconds_that_the_request_had_in_all() -> None:
    with pytest.raises(DeadlineError, match="not done within 7 s; the remaining work was dropped"):
        await client_of(never).encode(long_request(), timeout_s=0.02, stated_s=7.0)


async def test_a_full_queue_refuses_the_first_chunk_at_once_but_makes_later_ones_wait() -> None:
    seen: list[int] = []

    async def full_later(batch: TokenBatch) -> EncodedBatch:
        first = int(batch.ids[0])
        seen.append(first)
        return refusal(batch) if first and seen.count(first) < 3 else answer(batch)

    waited = await client_of(full_later).encode(long_request(), timeout_s=10)
    assert waited.failures == ()
    assert waited.dense[:, 0].tolist() == list(range(100))

    async def full_at_once(batch: TokenBatch) -> EncodedBatch:
        return refusal(batch) if batch.ids[0] == 0 else answer(batch)

    with pytest.raises(QueueFullError):
        await asyncio.wait_for(client_of(full_at_once).encode(long_request(), timeout_s=10), 1)


async def test_a_text_that_fails_in_a_later_chunk_is_named_by_its_place_in_the_request() -> None:
    async def fails(batch: TokenBatch) -> EncodedBatch:
        rows = [int(row[0]) for row in batch.rows()]
        failures = tuple(ItemFailure(i, "non_finite", "no") for i, first in enumerate(rows) if first == 57)
        return EncodedBatch(np.zeros((len(rows), 1), np.float32), failures)

    with pytest.raises(NonFiniteError) as caught:
        await client_of(fails).encode(long_request(), timeout_s=10)
    assert caught.value.item == 57


async def test_a_passed_deadline_cancels_the_calls_under_way() -> None:
    cancelled = 0

    async def never(_: TokenBatch) -> EncodedBatch:
        nonlocal cancelled
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled += 1
            raise
        raise AssertionError

    with pytest.raises(DeadlineError):
        await client_of(never).encode(long_request(), timeout_s=0.02)
    await asyncio.sleep(0)
    assert cancelled == 4


async def test_without_a_replica_a_request_is_refused_at_once() -> None:
    client = client_of(lambda _: pytest.fail("nothing may be sent"))  # type: ignore[arg-type, return-value]
    client.state = None
    with pytest.raises(UnavailableError) as refused:
        await client.encode(long_request(), timeout_s=10)
    assert refused.value.retry_after_s
