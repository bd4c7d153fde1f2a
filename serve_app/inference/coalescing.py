"""One handle call for several small requests, and retries that isolate a text on which replicas crash."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from serve_app.domain.embeddings import EncodedBatch, TokenBatch
from serve_app.domain.errors import UnavailableError
from serve_app.inference.replica_caller import ATTEMPTS, PAUSE_S, ReplicaCaller, ReplicaLostError

_AT_ONCE = 4  # calls of one ``BatchedCall`` in flight; a text on which a replica crashes fails all of them
_MIN_ATTEMPTS_ALONE = 2


class BatchedCall:
    """A call of ``encode`` with the texts of several requests; it is cancelled when no request waits for it.

    If the replica is lost, the requests are sent again in two calls at once, each with half of them, and so on for each
    call that is lost: a text on which a replica crashes is alone after log2(n) rounds, while the others are computed
    together. A request fails only if it is lost alone, while no other call of these is in flight.

    Attributes:
        answers: One future for each request; cancelling it withdraws the request.
    """

    def __init__(self, caller: ReplicaCaller, batches: Sequence[TokenBatch]) -> None:
        """Sends the call, on the running event loop."""
        loop = asyncio.get_running_loop()
        self._caller = caller
        self._batches = batches
        self._calls = asyncio.Semaphore(_AT_ONCE)
        self._suspects: list[tuple[int, int]] = []  # index and lost calls of requests lost alone, beside other calls
        self.answers: list[asyncio.Future[EncodedBatch]] = [loop.create_future() for _ in batches]
        self._task = loop.create_task(self._run())
        for answer in self.answers:
            answer.add_done_callback(self._cancel_if_withdrawn)

    def _cancel_if_withdrawn(self, _: asyncio.Future[EncodedBatch]) -> None:
        if all(answer.cancelled() for answer in self.answers):
            self._task.cancel()

    async def _run(self) -> None:
        everything = range(len(self._batches))
        try:
            if len(self._batches) == 1:
                self._answer(0, await self._caller.call("encode", self._batches[0]))
            else:
                await self._send(everything, lost=0)
                await self._send_one_by_one()
        except Exception as error:
            self._fail(everything, error)
        except asyncio.CancelledError:  # raised by the call, or the ingress stops: the requests must not wait for ever
            self._fail(everything, UnavailableError("the call to the model was cancelled; try again"))
            raise

    async def _send(self, requests: Sequence[int], *, lost: int) -> None:
        """Sends some of the requests in one call; if that is lost, sends each half in its own call.

        Args:
            requests: Indices; withdrawn requests are left out.
            lost: Number of lost calls of these requests so far.
        """
        async with self._calls:
            waiting = [i for i in requests if not self.answers[i].done()]
            if not waiting:
                return
            try:
                joined = await self._caller.call_once("encode", TokenBatch.join([self._batches[i] for i in waiting]))
            except ReplicaLostError:
                lost += 1
            except Exception as error:
                self._fail(waiting, error)
                return
            else:
                self._answer_parts(waiting, joined)
                return
        if len(waiting) == 1:
            self._suspects.append((waiting[0], lost))
            return
        await asyncio.sleep(PAUSE_S * lost)
        middle = len(waiting) // 2
        await asyncio.gather(self._send(waiting[:middle], lost=lost), self._send(waiting[middle:], lost=lost))

    async def _send_one_by_one(self) -> None:
        """Sends requests that may have crashed a replica one after the other, so that none fails because of another."""
        queue = deque((i, max(_MIN_ATTEMPTS_ALONE, ATTEMPTS - lost)) for i, lost in self._suspects)
        while queue:
            i, attempts = queue.popleft()
            if self.answers[i].done():
                continue
            await asyncio.sleep(PAUSE_S * (ATTEMPTS - attempts))
            try:
                self._answer(i, await self._caller.call_once("encode", self._batches[i]))
            except ReplicaLostError as error:
                if attempts > 1:
                    queue.append((i, attempts - 1))
                else:
                    self._fail([i], error)
            except Exception as error:
                self._fail([i], error)

    def _answer_parts(self, requests: Sequence[int], joined: EncodedBatch) -> None:
        start = 0
        for i in requests:
            stop = start + len(self._batches[i].lengths)
            self._answer(i, joined.part(start, stop))
            start = stop

    def _answer(self, i: int, answer: EncodedBatch) -> None:
        if not self.answers[i].done():
            self.answers[i].set_result(answer)

    def _fail(self, requests: Sequence[int], error: Exception) -> None:
        for i in requests:
            if not self.answers[i].done():
                self.answers[i].set_exception(error)
