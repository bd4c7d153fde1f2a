"""The ingress's side of an encoder: coalescing, chunks, retries, and whether anybody is there.

Small requests that wait on the same turn of the event loop travel in one handle call, because a handle
call costs more CPU than everything else about a small request. Large requests travel alone, in chunks:
a chunk is the unit that is retried and spread over replicas, and only a few are under way at once, so a
long list neither floods the backlog nor hides its length from the scheduler.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from serve_app.deployments.encoder import Encoder, EncoderState
from serve_app.domain.embeddings import DenseBatch, RequestShare, TokenBatch
from serve_app.domain.errors import DeadlineError, QueueFullError, UnavailableError

logger = logging.getLogger(__name__)

_SMALL_TOKENS = 1024  # a request up to this size is coalesced with others
_CHUNK_TOKENS = 8192
_CHUNKS_UNDER_WAY = 4
_ATTEMPTS = 4  # a dead replica may be chosen again until the router has heard of it
_PING_S = 2.0
_PING_TIMEOUT_S = 3.0
_GIVE_UP_S = 30.0  # silence after which requests are refused; a replica is replaced in less than that

_keys = itertools.count(int.from_bytes(os.urandom(6), "big") << 8)  # distinct between ingress replicas


class EncoderClient:
    """Calls one encoder deployment; lives on the ingress replica's event loop."""

    def __init__(self, handle: DeploymentHandle[Encoder]) -> None:
        """Wraps a handle; ``start`` begins to watch the deployment."""
        self.handle = handle
        self.state: EncoderState | None = None
        self._last_answer = 0.0
        self._answered = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None

    async def start(self, *, wait_s: float) -> None:
        """Starts to watch whether a replica answers, on the running event loop.

        Args:
            wait_s: Returns when the first replica has answered, or after this many seconds. A new ingress
                replica must not take requests before it reaches encoders that are there.
        """
        self._watcher = asyncio.get_running_loop().create_task(self._watch())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._answered.wait(), wait_s)

    async def encode(self, batch: TokenBatch, *, timeout_s: float) -> DenseBatch:
        """Vectors of one request's texts.

        Raises:
            UnavailableError: No replica answers.
            QueueFullError: The encoder's backlog is full.
            DeadlineError: ``timeout_s`` seconds passed; what still waited was dropped.
        """
        if self.state is None:
            raise UnavailableError("the model is not ready: it is loading, or its replicas are restarting")
        try:
            async with asyncio.timeout(timeout_s):
                if batch.tokens <= _SMALL_TOKENS:
                    return await self._encode_small(batch, timeout_s)
                return await self._encode_chunks(batch, timeout_s)
        except TimeoutError:
            raise DeadlineError(f"not done within {timeout_s:g} s; the remaining work was dropped") from None

    # ------------------------------------------------------------------ small: together with others

    async def _encode_small(self, batch: TokenBatch, timeout_s: float) -> DenseBatch:
        share = RequestShare(next(_keys), len(batch.lengths), timeout_s)
        seat = await _board(_Passenger(self, TokenBatch(batch.ids, batch.lengths, (share,))))
        return await seat.answer()

    # ------------------------------------------------------------------ large: alone, in chunks

    async def _encode_chunks(self, batch: TokenBatch, timeout_s: float) -> DenseBatch:
        key, deadline = next(_keys), time.monotonic() + timeout_s
        gate = asyncio.Semaphore(_CHUNKS_UNDER_WAY)
        rows = batch.rows()

        async def send(part: slice, *, first: bool) -> DenseBatch:
            async with gate:
                chunk = TokenBatch.of_rows(rows[part])
                while True:
                    left_s = deadline - time.monotonic()
                    share = RequestShare(key, len(chunk.lengths), left_s)
                    answer = await self.call(TokenBatch(chunk.ids, chunk.lengths, (share,)))
                    full = next((f for f in answer.failures if f.code == QueueFullError.code), None)
                    if full is None or first:  # the first chunk decides; later ones wait for their place
                        return answer
                    await asyncio.sleep(min(1.0, full.retry_after_s or 1.0))

        parts = batch.slices(_CHUNK_TOKENS)
        tasks = [asyncio.ensure_future(send(part, first=i == 0)) for i, part in enumerate(parts)]
        try:
            return DenseBatch.join(await asyncio.gather(*tasks))
        finally:  # one failed, or the client left: the others are not wanted any more
            for task in tasks:
                task.cancel()

    # ------------------------------------------------------------------ the call

    async def call(self, batch: TokenBatch) -> DenseBatch:
        """One handle call. Encoding is idempotent, so it is sent again if the replica dies under it."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                answer: DenseBatch = await self.handle.encode.remote(batch)
            except (RayActorError, ReplicaUnavailableError) as error:
                logger.warning("an encoder replica died (%s), attempt %d", type(error).__name__, attempt)
                await asyncio.sleep(0.05 * attempt)
            except BackPressureError as error:
                raise QueueFullError("too many calls wait for the encoder; try again later") from error
            except DeploymentUnavailableError as error:
                raise UnavailableError("the encoder could not be deployed; see the Ray dashboard") from error
            else:
                self._last_answer = time.monotonic()
                return answer
        raise UnavailableError("the encoder's replicas died under this request; try again later")

    async def _watch(self) -> None:
        """Keeps ``state`` true: what a replica said of itself, or None while none answers.

        A single failed ping means little: the replica it went to may just have died beside healthy ones.
        """
        while True:
            if time.monotonic() - self._last_answer > _PING_S:
                try:
                    async with asyncio.timeout(_PING_TIMEOUT_S):
                        self.state = await self.handle.state.remote()
                    self._last_answer = time.monotonic()
                    self._answered.set()
                except Exception as error:
                    silent_s = time.monotonic() - self._last_answer
                    if self.state is not None and silent_s > _GIVE_UP_S:
                        logger.warning("no encoder replica has answered for %.0f s (%r)", silent_s, error)
                        self.state = None
                    await asyncio.sleep(0.2)
                    continue
            await asyncio.sleep(_PING_S)


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
        self._task = asyncio.get_running_loop().create_task(client.call(joined))

    async def answer(self, start: int, stop: int) -> DenseBatch:
        try:
            return (await asyncio.shield(self._task)).part(start, stop)
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

    async def answer(self) -> DenseBatch:
        return await self.ride.answer(self.start, self.stop)


@serve.batch(max_batch_size=64, batch_wait_timeout_s=0, max_concurrent_batches=16)
async def _board(passengers: list[_Passenger]) -> list[_Seat]:
    """Starts one handle call for each encoder among the passengers; does not wait for the answers."""
    by_client: dict[EncoderClient, list[_Passenger]] = defaultdict(list)
    for passenger in passengers:
        by_client[passenger.client].append(passenger)
    seats: dict[int, _Seat] = {}
    for client, together in by_client.items():
        ride, start = _Ride(client, together), 0
        for passenger in together:
            stop = start + len(passenger.batch.lengths)
            seats[id(passenger)] = _Seat(ride, start, stop)
            start = stop
    return [seats[id(passenger)] for passenger in passengers]
