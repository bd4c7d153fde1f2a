"""The ingress's side of an encoder: coalescing, chunks, retries, and whether anybody is there.

Small requests that wait on the same turn of the event loop travel in one handle call, because a handle
call costs more CPU than everything else about a small request. Large requests travel alone, in chunks:
a chunk is the unit that is retried and spread over replicas, and only a few are under way at once, so a
long list neither floods the backlog nor hides its length from the scheduler.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, replace

from ray import serve

from serve_app.deployments.replica_caller import ReplicaCaller, next_key
from serve_app.domain.embeddings import DENSE, EncodedBatch, ModelVersion, RequestShare, TokenBatch
from serve_app.domain.profiles import Capability
from serve_app.inference.chunking import CHUNK_TOKENS, gather_chunks
from serve_app.inference.coalescing import BatchedCall
from serve_app.inference.deadline import within

_SMALL_TOKENS = 1024  # a request up to this size is coalesced with others
_KILOBYTES_A_TOKEN = frozenset({Capability.COLBERT, Capability.TOKEN_STATES})  # unless its answer is as large


class EncoderClient(ReplicaCaller):
    """Calls one encoder deployment."""

    async def encode(
        self,
        batch: TokenBatch,
        *,
        timeout_s: float,
        want: frozenset[Capability] = DENSE,
        stated_s: float | None = None,
    ) -> EncodedBatch:
        """The representations of one request's texts.

        Args:
            batch: Their tokens.
            timeout_s: Seconds that are left.
            want: Which representations.
            stated_s: Seconds that the request had in all; see ``within``.

        Raises:
            UnavailableError: No replica answers.
            QueueFullError: The encoder's backlog is full.
            DeadlineError: ``timeout_s`` seconds passed; what still waited was dropped.
        """
        self.require_ready()
        large_answer = not want.isdisjoint(_KILOBYTES_A_TOKEN)
        small = batch.tokens <= _SMALL_TOKENS and not large_answer
        work = (self._encode_small if small else self._encode_chunks)(batch, timeout_s, want)
        return await within(timeout_s, work, stated_s=stated_s)

    # ------------------------------------------------------------------ small: together with others

    async def _encode_small(self, batch: TokenBatch, timeout_s: float, want: frozenset[Capability]) -> EncodedBatch:
        share = RequestShare(next_key(), len(batch.lengths), timeout_s, want)
        return await (await _coalesce(_PendingRequest(self, replace(batch, shares=(share,)))))

    # ------------------------------------------------------------------ large: alone, in chunks

    async def _encode_chunks(self, batch: TokenBatch, timeout_s: float, want: frozenset[Capability]) -> EncodedBatch:
        key, deadline = next_key(), time.monotonic() + timeout_s
        rows = batch.rows()

        async def send(part: slice) -> EncodedBatch:
            chunk = rows[part]
            share = RequestShare(key, len(chunk), deadline - time.monotonic(), want)
            answer: EncodedBatch = await self.call("encode", TokenBatch.of_rows(chunk, (share,), batch.variant))
            for failure in answer.failures:  # one fails the request, so the other chunks are not wanted
                raise replace(failure, index=failure.index + part.start).error()
            return answer

        return EncodedBatch.join(await gather_chunks(batch.slices(CHUNK_TOKENS), send))


@dataclass(eq=False)
class _PendingRequest:
    """A small request that waits for the next handle call to its encoder."""

    client: EncoderClient
    batch: TokenBatch


@serve.batch(max_batch_size=64, batch_wait_timeout_s=0, max_concurrent_batches=16)
async def _coalesce(passengers: list[_PendingRequest]) -> list[asyncio.Future[EncodedBatch]]:
    """Starts one handle call for each model among the passengers; does not wait for the answers."""
    by_model: dict[tuple[EncoderClient, ModelVersion | None], list[_PendingRequest]] = defaultdict(list)
    for passenger in passengers:
        by_model[passenger.client, passenger.batch.variant].append(passenger)
    answers: dict[int, asyncio.Future[EncodedBatch]] = {}
    for (client, _), together in by_model.items():
        call = BatchedCall(client, [passenger.batch for passenger in together])
        answers.update((id(passenger), answer) for passenger, answer in zip(together, call.answers, strict=True))
    return [answers[id(passenger)] for passenger in passengers]
