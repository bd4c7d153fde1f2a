"""The scheduler of a device: admission, micro-batches, deadlines, and an answer for every text.

A free device takes the text whose request has had the least service so far, with it this request's fair share of the
micro-batch, and then the waiting texts nearest in length, up to a budget of padded tokens. Such micro-batches alternate
with those of texts that would have been served already in the order of arrival (see ``backlog``). So batches grow with
the load, padding stays small, nothing starves, and a single query beside a list of thousands waits for a few
micro-batches.

Pure asyncio; the ``forward`` callable computes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from serve_app.domain.background import BackgroundTasks
from serve_app.domain.errors import DeadlineError, InternalError, QueueFullError, ServiceError, UnavailableError
from serve_app.models.batching.backlog import Backlog
from serve_app.models.batching.batch_budget import BatchBudget

logger = logging.getLogger(__name__)

T = TypeVar("T")  # input of the forward for one text
R = TypeVar("R")  # its result


@dataclass(frozen=True)
class MicroBatchReport:
    """Measurements of one forward, for the metrics.

    Attributes:
        longest_wait_s: In the backlog.
        forward_s: Computation alone, if the forward measured it; see ``Scheduler.note_computation``.
    """

    texts: int
    tokens: int
    padded_tokens: int
    longest_wait_s: float
    forward_s: float


@dataclass(frozen=True)
class UnderWay:
    """A forward in progress.

    Attributes:
        began: On the monotonic clock.
        padded_tokens: Of its micro-batch.
    """

    began: float
    padded_tokens: int


@dataclass(eq=False)
class _Text(Generic[T, R]):
    item: T
    length: int
    row: int
    ticket: Ticket[T, R]


@dataclass(eq=False)
class Ticket(Generic[T, R]):
    """The place of one request's texts in the backlog.

    Attributes:
        done: Resolves to one result or ``ServiceError`` for each text, in order. Cancelling it takes
            its waiting texts out of the backlog.
    """

    key: int
    done: asyncio.Future[list[R | ServiceError]]
    results: list[R | ServiceError | None]
    submitted: float
    missing: int
    timer: asyncio.TimerHandle | None = None


class Scheduler(Generic[T, R]):
    """Feeds one device with micro-batches; one instance to a device, on one event loop."""

    def __init__(
        self,
        forward: Callable[[Sequence[T]], Awaitable[Sequence[R | ServiceError]]],
        *,
        max_batch_tokens: int,
        max_padding_tokens: int,
        max_backlog_tokens: int,
        max_batch_seconds: float = math.inf,
        report: Callable[[MicroBatchReport], None] = lambda _: None,
    ) -> None:
        """Sets the bounds; ``start`` begins the work.

        Args:
            forward: Computes one micro-batch, results in order. May raise: then every text of the
                micro-batch fails with that error and the scheduler continues.
            max_batch_tokens: Budget of a micro-batch, longest text times number of texts. A longer text
                goes alone.
            max_padding_tokens: A text joins a micro-batch only if it adds at most this many padding
                tokens. A good value is the fixed cost of a forward, expressed in tokens.
            max_batch_seconds: How long a micro-batch of several texts should take at most, at the speed of those
                before it.
            max_backlog_tokens: More waiting tokens than this are refused, unless nothing waits.
            report: Called after each forward.
        """
        self._forward = forward
        self._max_backlog_tokens = max_backlog_tokens
        self._report = report
        self._budget = BatchBudget(max_batch_tokens, max_seconds=max_batch_seconds)
        self._ran_out_of_memory = False
        self._computed_s: float | None = None
        self._backlog: Backlog[_Text[T, R]] = Backlog(
            max_batch_tokens=max_batch_tokens, max_padding_tokens=max_padding_tokens
        )
        self._wake = asyncio.Event()
        self._speed = 0.0  # tokens per second, smoothed
        self._tasks = BackgroundTasks()
        self._tickets: set[Ticket[T, R]] = set()  # without an answer so far
        self._failure: str | None = None
        self.under_way: UnderWay | None = None

    def start(self) -> None:
        """Starts to serve the backlog, on the running event loop."""
        self._tasks.start("micro-batches", self._serve(), on_failure=self._fail)

    async def stop(self) -> None:
        """Stops; texts that wait or are under way are failed."""
        await self._tasks.stop()
        self._answer_all(InternalError("the encoder stopped"))

    def check(self) -> None:
        """Raises ``BackgroundTaskError`` if the scheduler has ended."""
        self._tasks.check()

    @property
    def waiting_texts(self) -> int:
        """Number of texts in the backlog."""
        return len(self._backlog)

    @property
    def backlog_tokens(self) -> int:
        """Number of their tokens."""
        return self._backlog.tokens

    @property
    def budget_tokens(self) -> int:
        """Padded tokens of the next micro-batch, at most: fewer than configured after a lack of memory or time."""
        return self._budget.tokens

    def note_out_of_memory(self) -> None:
        """Called by a forward that had to be split: the micro-batches after it are smaller for a while."""
        self._ran_out_of_memory = True

    def note_computation(self, seconds: float) -> None:
        """Called by a forward that had to wait for its device: how long it computed once it had it.

        Without this call, all the time that ``forward`` took counts as computation.
        """
        self._computed_s = seconds

    def submit(
        self,
        items: Sequence[T],
        lengths: Sequence[int],
        *,
        key: int,
        timeout_s: float,
        max_texts: int = sys.maxsize,
        group: Hashable = None,
    ) -> Ticket[T, R]:
        """Puts the texts of a request, or of a part of it, into the backlog.

        Args:
            items: Inputs of ``forward``, one for each text.
            lengths: Tokens of each text.
            key: Of the request, for fairness; parts of one request share it.
            timeout_s: After this many seconds the texts that still wait fail with ``DeadlineError``.
            max_texts: Texts of this request in one forward, at most; the same for all parts of a request.
            group: Only texts of one group share a forward; likewise.

        Raises:
            QueueFullError: The backlog is at its bound.
            UnavailableError: The scheduler has ended.
        """
        if self._failure is not None:
            raise UnavailableError(f"the model's replica has failed ({self._failure}); it is being replaced")
        loop = asyncio.get_running_loop()
        tokens = sum(lengths)
        if self.backlog_tokens and self.backlog_tokens + tokens > self._max_backlog_tokens:
            raise QueueFullError(
                f"the encoder's backlog is full ({self.backlog_tokens} tokens wait); try again later",
                retry_after_s=self._seconds_to_clear(),
            )
        ticket: Ticket[T, R] = Ticket(key, loop.create_future(), [None] * len(items), time.monotonic(), len(items))
        if not items:
            ticket.done.set_result([])
            return ticket
        self._tickets.add(ticket)
        ticket.done.add_done_callback(lambda _: self._drop(ticket))
        ticket.timer = loop.call_later(timeout_s, self._expire, ticket)
        texts = [_Text(item, int(n), row, ticket) for row, (item, n) in enumerate(zip(items, lengths, strict=True))]
        self._backlog.add(texts, [text.length for text in texts], key=key, max_texts=max_texts, group=group)
        self._wake.set()
        return ticket

    # ------------------------------------------------------------------ the loop

    async def _serve(self) -> None:
        while True:
            await self._wake.wait()
            if not await self._serve_one():
                self._wake.clear()

    async def _serve_one(self) -> bool:
        """Serves one micro-batch, if anything waits; a function of its own, so that an idle loop keeps nothing alive.

        Texts and results may hold megabytes on the device, or a whole fine-tune.
        """
        self._backlog.max_batch_tokens = self._budget.tokens
        batch = self._backlog.take()
        if not batch:
            return False
        began = time.monotonic()
        self.under_way = UnderWay(began, _padded_tokens(batch))
        self._computed_s = None
        try:
            results: Sequence[R | ServiceError] = await self._forward([text.item for text in batch])
            if len(results) != len(batch):
                raise InternalError(f"the forward answered {len(results)} results for {len(batch)} texts")
        except Exception as error:
            logger.exception("a micro-batch of %d texts failed", len(batch))
            failure = error if isinstance(error, ServiceError) else InternalError(repr(error))
            results = [failure] * len(batch)
        finally:
            self.under_way = None
        ended = time.monotonic()
        for text, result in zip(batch, results, strict=True):
            self._settle(text, result)
        try:
            self._account(batch, began, ended - began if self._computed_s is None else self._computed_s)
        except Exception:  # an error in the accounting must not stop the scheduler
            logger.exception("a micro-batch was computed but not counted")
        return True

    # ------------------------------------------------------------------ ends

    def _settle(self, text: _Text[T, R], result: R | ServiceError) -> None:
        ticket = text.ticket
        ticket.results[text.row] = result
        ticket.missing -= 1
        if ticket.missing == 0 and not ticket.done.done():
            ticket.done.set_result([r for r in ticket.results if r is not None])

    def _fail(self, reason: str) -> None:
        """Answers everything: the loop has ended by an error, and no text should wait for its deadline."""
        self._failure = reason
        self._answer_all(InternalError(f"no micro-batches are formed any more: {reason}"))

    def _answer_all(self, error: ServiceError) -> None:
        for ticket in list(self._tickets):
            if not ticket.done.done():
                ticket.done.set_result([error if r is None else r for r in ticket.results])

    def _expire(self, ticket: Ticket[T, R]) -> None:
        if ticket.done.done():
            return
        late = DeadlineError("the deadline passed while the text waited for the device")
        ticket.done.set_result([late if r is None else r for r in ticket.results])

    def _drop(self, ticket: Ticket[T, R]) -> None:
        """Takes what still waits of a finished, expired or abandoned ticket out of the backlog."""
        self._tickets.discard(ticket)
        if ticket.timer is not None:
            ticket.timer.cancel()
        if ticket.missing == 0:
            return
        self._backlog.discard(ticket.key, lambda text: text.ticket is ticket)

    def _account(self, batch: Sequence[_Text[T, R]], began: float, forward_s: float) -> None:
        tokens = sum(text.length for text in batch)
        if self._ran_out_of_memory:
            self._budget.shrink(_padded_tokens(batch))
            self._ran_out_of_memory = False
        else:
            self._budget.observe(_padded_tokens(batch), forward_s)
        speed = tokens / max(forward_s, 1e-6)
        self._speed = speed if self._speed == 0 else 0.9 * self._speed + 0.1 * speed
        self._report(
            MicroBatchReport(
                texts=len(batch),
                tokens=tokens,
                padded_tokens=_padded_tokens(batch),
                longest_wait_s=began - min(text.ticket.submitted for text in batch),
                forward_s=forward_s,
            )
        )

    def _seconds_to_clear(self) -> float:
        """About how long until a tenth of the backlog is done, at least a second."""
        return max(1.0, 0.1 * self.backlog_tokens / self._speed) if self._speed else 1.0


def _padded_tokens(batch: Sequence[_Text[T, R]]) -> int:
    return max(text.length for text in batch) * len(batch)
