from __future__ import annotations

import asyncio

import pytest

from serve_app.domain.errors import RateLimitError
from serve_app.domain.usage import add_tokens, measured


async def test_only_tokens_within_the_block_are_counted() -> None:
    await add_tokens(1)
    with measured() as usage:
        await add_tokens(2)
        await add_tokens(3)
    await add_tokens(4)
    assert usage.tokens == 5


async def test_requests_that_run_together_are_counted_apart() -> None:
    async def request(tokens: int) -> int:
        with measured() as usage:
            await asyncio.sleep(0)
            await add_tokens(tokens)
            await asyncio.create_task(add_tokens(tokens))
            return usage.tokens

    assert await asyncio.gather(request(1), request(10), request(100)) == [2, 20, 200]


async def test_tokens_that_may_not_be_spent_are_not_counted() -> None:
    async def at_most_ten(tokens: int) -> None:
        if tokens > 10:
            raise RateLimitError("no")

    with measured(at_most_ten) as usage:
        await add_tokens(8)
        with pytest.raises(RateLimitError):
            await add_tokens(3)
        await add_tokens(2)
    assert usage.tokens == 10
