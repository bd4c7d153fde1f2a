"""Calls of an encoder deployment: small requests are coalesced, large ones are sent in chunks.

Small requests that arrive in the same iteration of the event loop share one handle call, because a handle call costs
more CPU than the rest of a small request. A large request is sent alone, in chunks: a chunk is retried and placed on a
replica by itself, and only a few are in flight, so a long list neither floods the backlog nor hides its length from
the scheduler.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from serve_app.domain.embeddings import DENSE, EncodedBatch, ModelVersion, RequestShare, TokenBatch
from serve_app.domain.profiles import Capability
from serve_app.inference.chunking import CHUNK_TOKENS, gather_chunks
from serve_app.inference.coalescing import BatchedCall
from serve_app.inference.deadline import within
from serve_app.inference.replica_caller import Deployment, ReplicaCaller, next_key

_SMALL_TOKENS = 1024  # a request of at most so many tokens is coalesced
_KILOBYTES_A_TOKEN = frozenset({Capability.COLBERT, Capability.TOKEN_STATES})  # unless its answer is this large


@dataclass(eq=False)
class PendingRequest:
    """A small request that waits for the next handle call to its encoder."""

    client: EncoderClient
    batch: TokenBatch


Coalesce: TypeAlias = Callable[[PendingRequest], Awaitable["asyncio.Future[EncodedBatch]"]]
"""Adds a request to the next handle call of its model and returns the future of its answer."""


class EncoderClient(ReplicaCaller):
    """Calls one encoder deployment."""

    def __init__(self, deployment: Deployment, coalesce: Coalesce) -> None:
        """Prepares; ``start`` begins to watch the deployment."""
        super().__init__(deployment)
        self._coalesce = coalesce

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
            want: Representations to compute.
            stated_s: Seconds that the request had in all; see ``within``.

        Raises:
            UnavailableError: No replica answers.
            QueueFullError: The encoder's backlog is full.
            DeadlineError: ``timeout_s`` seconds passed; work that still waited was dropped.
        """
        self.require_ready()
        large_answer = not want.isdisjoint(_KILOBYTES_A_TOKEN)
        small = batch.tokens <= _SMALL_TOKENS and not large_answer
        work = (self._encode_small if small else self._encode_chunks)(batch, timeout_s, want)
        return await within(timeout_s, work, stated_s=stated_s)

    async def _encode_small(self, batch: TokenBatch, timeout_s: float, want: frozenset[Capability]) -> EncodedBatch:
        share = RequestShare(next_key(), len(batch.lengths), timeout_s, want)
        return await (await self._coalesce(PendingRequest(self, replace(batch, shares=(share,)))))

    async def _encode_chunks(self, batch: TokenBatch, timeout_s: float, want: frozenset[Capability]) -> EncodedBatch:
        key, deadline = next_key(), time.monotonic() + timeout_s
        rows = batch.rows()

        async def send(part: slice) -> EncodedBatch:
            chunk = rows[part]
            share = RequestShare(key, len(chunk), deadline - time.monotonic(), want)
            answer: EncodedBatch = await self.call("encode", TokenBatch.of_rows(chunk, (share,), batch.model_version))
            for failure in answer.failures:  # one failed text fails the request, so the other chunks are not needed
                raise replace(failure, index=failure.index + part.start).error()
            return answer

        return EncodedBatch.join(await gather_chunks(batch.slices(CHUNK_TOKENS), send))


async def coalesce(requests: list[PendingRequest]) -> list[asyncio.Future[EncodedBatch]]:
    """Starts one handle call for each model among the requests; does not wait for the answers."""
    by_model: dict[tuple[EncoderClient, ModelVersion | None], list[PendingRequest]] = defaultdict(list)
    for request in requests:
        by_model[request.client, request.batch.model_version].append(request)
    answers: dict[int, asyncio.Future[EncodedBatch]] = {}
    for (client, _), together in by_model.items():
        call = BatchedCall(client, [request.batch for request in together])
        answers.update((id(request), answer) for request, answer in zip(together, call.answers, strict=True))
    return [answers[id(request)] for request in requests]
