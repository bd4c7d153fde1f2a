"""A device for the scheduler that computes nothing, remembers everything and can be made to wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from serve_app.domain.errors import ServiceError
from serve_app.models.batching.scheduler import Scheduler, Ticket

Item = tuple[str, int]  # a text's name and its length in tokens

PLENTY = 10**9
PATIENCE_S = 60.0


def texts(name: str, lengths: Iterable[int]) -> list[Item]:
    """Items ``name0``, ``name1`` ... of these lengths."""
    return [(f"{name}{i}", length) for i, length in enumerate(lengths)]


def answer_to(item: Item) -> str:
    return f"vector of {item[0]}"


class FakeDevice:
    """The forward: ``batches`` has every micro-batch that began. Held, each waits until ``finish`` lets it through."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[Item]] = []
        self._permits = asyncio.Semaphore(0) if held else None

    async def __call__(self, items: Sequence[Item]) -> Sequence[str | ServiceError]:
        self.batches.append(list(items))
        await (asyncio.sleep(0) if self._permits is None else self._permits.acquire())
        return self.answer(items)

    def answer(self, items: Sequence[Item]) -> Sequence[str | ServiceError]:
        """What a forward gives back; tests of failures override it."""
        return [answer_to(item) for item in items]

    async def finish(self, count: int = 1) -> None:
        """Lets micro-batches of a held device end, and gives the scheduler time to begin the next."""
        assert self._permits is not None
        for _ in range(count):
            self._permits.release()
            await turns()

    @property
    def names(self) -> list[list[str]]:
        """The micro-batches as names of texts."""
        return [[name for name, _ in batch] for batch in self.batches]


async def turns(count: int = 8) -> None:
    """Lets the event loop run everything that is ready, and what that makes ready."""
    for _ in range(count):
        await asyncio.sleep(0)


@asynccontextmanager
async def serving(
    device: FakeDevice,
    *,
    batch: int = 100,
    padding: int = PLENTY,
    backlog: int = PLENTY,
    report: Any = lambda _: None,
) -> AsyncIterator[Scheduler[Item, str]]:
    """A scheduler that feeds the device with these bounds, stopped at the end."""
    scheduler: Scheduler[Item, str] = Scheduler(
        device, max_batch_tokens=batch, max_padding_tokens=padding, max_backlog_tokens=backlog, report=report
    )
    scheduler.start()
    try:
        yield scheduler
    finally:
        await scheduler.stop()


def submit(
    scheduler: Scheduler[Item, str], items: Sequence[Item], *, key: int = 0, timeout_s: float = PATIENCE_S, **more: Any
) -> Ticket[Item, str]:
    return scheduler.submit(items, [length for _, length in items], key=key, timeout_s=timeout_s, **more)


async def results_of(ticket: Ticket[Item, str], timeout_s: float = 10.0) -> list[str | ServiceError]:
    """The results of a ticket; a scheduler that never answers fails the test instead of hanging it."""
    return await asyncio.wait_for(asyncio.shield(ticket.done), timeout_s)
