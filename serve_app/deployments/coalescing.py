"""One handle call for several small requests, and what becomes of them if its replica is lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from serve_app.deployments.calls import ATTEMPTS, PAUSE_S, ReplicaCaller, ReplicaLostError
from serve_app.domain.embeddings import EncodedBatch, TokenBatch
from serve_app.domain.errors import UnavailableError


class BatchedCall:
    """A call of ``encode`` with the texts of several requests; it is cancelled when none of them waits any more.

    If the replica is lost, each request is sent again in a call of its own, one after the other: a text on which a
    replica crashes takes no other request along. One that loses a replica again goes to the end of the line.

    Attributes:
        answers: One future for each request; cancelling it withdraws the request.
    """

    def __init__(self, caller: ReplicaCaller, batches: Sequence[TokenBatch]) -> None:
        """Sends the call, on the running event loop."""
        loop = asyncio.get_running_loop()
        self._caller = caller
        self._batches = batches
        self.answers: list[asyncio.Future[EncodedBatch]] = [loop.create_future() for _ in batches]
        self._task = loop.create_task(self._run())
        self._task.add_done_callback(self._settle)
        for answer in self.answers:
            answer.add_done_callback(self._cancel_if_unwanted)

    def _cancel_if_unwanted(self, _: asyncio.Future[EncodedBatch]) -> None:
        if all(answer.cancelled() for answer in self.answers):
            self._task.cancel()

    def _settle(self, task: asyncio.Task[None]) -> None:
        """Leaves no request waiting: whatever ended the call, its open requests end with it."""
        if task.cancelled():
            error: BaseException = UnavailableError("the call of this request was cancelled; send it again")
        else:
            error = task.exception() or RuntimeError("the call ended without an answer for this request")
        for answer in self.answers:
            if not answer.done():
                answer.set_exception(error)

    async def _run(self) -> None:
        if len(self._batches) == 1:
            self._answer(0, await self._caller.call("encode", self._batches[0]))
        else:
            await self._send_together()

    async def _send_together(self) -> None:
        try:
            joined: EncodedBatch = await self._caller.call_once("encode", TokenBatch.join(self._batches))
        except ReplicaLostError:
            await asyncio.sleep(PAUSE_S)
            await self._send_one_by_one()
            return
        start = 0
        for i, batch in enumerate(self._batches):
            stop = start + len(batch.lengths)
            self._answer(i, joined.part(start, stop))
            start = stop

    async def _send_one_by_one(self) -> None:
        line = deque((i, 2) for i in range(len(self._batches)))  # each with the number of its attempt
        while line:
            i, attempt = line.popleft()
            if self.answers[i].done():
                continue
            try:
                self._answer(i, await self._caller.call_once("encode", self._batches[i]))
            except ReplicaLostError as error:
                if attempt < ATTEMPTS:
                    line.append((i, attempt + 1))
                    await asyncio.sleep(PAUSE_S * attempt)
                elif not self.answers[i].done():
                    self.answers[i].set_exception(error)
            except Exception as error:
                if not self.answers[i].done():
                    self.answers[i].set_exception(error)

    def _answer(self, i: int, answer: EncodedBatch) -> None:
        if not self.answers[i].done():
            self.answers[i].set_result(answer)
