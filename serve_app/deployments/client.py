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
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ray import serve

from serve_app.deployments.calls import ReplicaCaller, next_key
from serve_app.deployments.pieces import PIECE_TOKENS, piecewise
from serve_app.domain.embeddings import DENSE, EncodedBatch, RequestShare, TokenBatch, Variant
from serve_app.domain.errors import DeadlineError
from serve_app.domain.profiles import Capability

_SMALL_TOKENS = 1024  # a request up to this size is coalesced with others
_KILOBYTES_A_TOKEN = frozenset({Capability.COLBERT, Capability.TOKEN_STATES})  # unless its answer is as large


class EncoderClient(ReplicaCaller):
    """Calls one encoder deployment."""

    async def encode(self, batch: TokenBatch, *, timeout_s: float, want: frozenset[Capability] = DENSE) -> EncodedBatch:
        """The representations of one request's texts.

        Raises:
            UnavailableError: No replica answers.
            QueueFullError: The encoder's backlog is full.
            DeadlineError: ``timeout_s`` seconds passed; what still waited was dropped.
        """
        self.refuse_unless_ready()
        large_answer = not want.isdisjoint(_KILOBYTES_A_TOKEN)
        small = batch.tokens <= _SMALL_TOKENS and not large_answer
        try:
            async with asyncio.timeout(timeout_s):
                return await (self._encode_small if small else self._encode_chunks)(batch, timeout_s, want)
        except TimeoutError:
            raise DeadlineError(f"not done within {round(timeout_s, 2):g} s; the remaining work was dropped") from None

    # ------------------------------------------------------------------ small: together with others

    async def _encode_small(self, batch: TokenBatch, timeout_s: float, want: frozenset[Capability]) -> EncodedBatch:
        share = RequestShare(next_key(), len(batch.lengths), timeout_s, want)
        seat = await _board(_Passenger(self, replace(batch, shares=(share,))))
        return await seat.answer()

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

        return EncodedBatch.join(await piecewise(batch.slices(PIECE_TOKENS), send))


@dataclass(eq=False)
class _Passenger:
    """A small request that waits for the next handle call to its encoder."""

    client: EncoderClient
    batch: TokenBatch


class _Ride:
    """One handle call with several passengers; it is cancelled when all of them have left."""

    def __init__(self, client: EncoderClient, passengers: Sequence[_Passenger]) -> None:
        self._aboard = len(passengers)
        joined = TokenBatch.join([p.batch for p in passengers]) if len(passengers) > 1 else passengers[0].batch
        self._task = asyncio.get_running_loop().create_task(client.call("encode", joined))

    async def answer(self, start: int, stop: int) -> EncodedBatch:
        try:
            answer: EncodedBatch = await asyncio.shield(self._task)
            return answer.part(start, stop)
        except asyncio.CancelledError:
            self._aboard -= 1
            if self._aboard == 0:
                self._task.cancel()
            raise


@dataclass(frozen=True)
class _Seat:
    """A passenger's rows of the answer."""

    ride: _Ride
    start: int
    stop: int

    async def answer(self) -> EncodedBatch:
        return await self.ride.answer(self.start, self.stop)


@serve.batch(max_batch_size=64, batch_wait_timeout_s=0, max_concurrent_batches=16)
async def _board(passengers: list[_Passenger]) -> list[_Seat]:
    """Starts one handle call for each model among the passengers; does not wait for the answers."""
    by_model: dict[tuple[EncoderClient, Variant | None], list[_Passenger]] = defaultdict(list)
    for passenger in passengers:
        by_model[passenger.client, passenger.batch.variant].append(passenger)
    seats: dict[int, _Seat] = {}
    for (client, _), together in by_model.items():
        ride, start = _Ride(client, together), 0
        for passenger in together:
            stop = start + len(passenger.batch.lengths)
            seats[id(passenger)] = _Seat(ride, start, stop)
            start = stop
    return [seats[id(passenger)] for passenger in passengers]
