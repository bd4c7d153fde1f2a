from __future__ import annotations

import asyncio

from serve_app.domain.usage import add_tokens, measured


def test_what_is_read_inside_is_counted_and_nothing_else() -> None:
    add_tokens(1)
    with measured() as usage:
        add_tokens(2)
        add_tokens(3)
    add_tokens(4)
    assert usage.tokens == 5


async def test_requests_that_run_together_are_counted_apart_threads_included() -> None:
    async def request(tokens: int) -> int:
        with measured() as usage:
            await asyncio.sleep(0)
            await asyncio.to_thread(add_tokens, tokens)
            await asyncio.create_task(asyncio.to_thread(add_tokens, tokens))
            return usage.tokens

    assert await asyncio.gather(request(1), request(10), request(100)) == [2, 20, 200]
