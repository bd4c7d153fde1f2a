"""Token quota: a request pays exactly the tokens that it uses, whenever it is cancelled."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.api.middleware.token_quota import TokenBudget, admit
from serve_app.domain.errors import PayloadTooLargeError, RateLimitError
from serve_app.domain.usage import add_tokens, measured
from serve_app.security.api_keys import ApiKey
from serve_app.security.rate_limits import Admission, Rates

KEY = ApiKey("me", "0" * 64, tokens_per_minute=100)


class SlowLimiter:
    """Counts at a time that stands still; each call takes a number of turns of the event loop before and after it."""

    def __init__(self, before: int = 0, after: int = 0) -> None:
        self.rates = Rates()
        self.before, self.after = before, after

    async def admit(self, key: ApiKey, estimate: int) -> Admission:
        await turns(self.before)
        admission = self.rates.admit(key, 0, estimate=estimate)
        await turns(self.after)
        return admission

    async def charge(self, key: ApiKey, extra: int, reserved: int) -> float:
        await turns(self.before)
        wait_s = self.rates.charge(key, extra, 0, reserved=reserved)
        await turns(self.after)
        return wait_s

    def settle(self, key: ApiKey, used: int, reserved: int) -> None:
        self.rates.settle(key, used, 0, reserved=reserved)

    @property
    def level(self) -> float:
        """Tokens that are left; below zero in debt."""
        assert KEY.tokens_per_minute is not None
        wait_s = self.rates.admit(KEY, 0).wait_s
        if wait_s:
            return round(1 - wait_s * KEY.tokens_per_minute / 60, 6)
        left = self.rates.admit(KEY, 0, estimate=10**9).reserved
        self.rates.settle(KEY, 0, 0, reserved=left)
        return float(left)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@dataclass(frozen=True)
class Request:
    estimate: int
    parts: list[int]
    cancelled_after: int | None


async def served(limiter: SlowLimiter, request: Request, paid: list[int]) -> None:
    reserved = await admit(limiter, KEY, request.estimate)
    assert KEY.tokens_per_minute is not None
    budget = TokenBudget(KEY, KEY.tokens_per_minute, reserved, limiter)
    with measured(budget.require) as usage:
        try:
            await asyncio.gather(*map(add_tokens, request.parts))
        finally:
            paid.append(usage.tokens)
            budget.settle(usage.tokens)


async def run(limiter: SlowLimiter, requests: list[Request]) -> int:
    """Tokens that the requests have paid together."""
    paid: list[int] = []

    async def cancelled_in_time(request: Request) -> None:
        task = asyncio.create_task(served(limiter, request, paid))
        if request.cancelled_after is not None:
            await turns(request.cancelled_after)
            task.cancel()
        with suppress(RateLimitError, asyncio.CancelledError):
            await task

    await asyncio.gather(*map(cancelled_in_time, requests))
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
    await turns(2)
    return sum(paid)


@given(
    st.lists(
        st.builds(
            Request, st.integers(0, 80), st.lists(st.integers(0, 33), max_size=3), st.none() | st.integers(0, 12)
        ),
        max_size=8,
    ),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_requests_that_are_cancelled_at_any_moment_pay_what_they_used_and_no_debt_is_erased(
    requests: list[Request], before: int, after: int
) -> None:
    limiter = SlowLimiter(before, after)
    assert asyncio.run(run(limiter, requests)) == 100 - limiter.level


@pytest.mark.parametrize("cancelled_after", [3, 4, 5])  # during the charge: before and after it was counted
async def test_a_request_that_is_cancelled_during_its_charge_erases_no_debt(cancelled_after: int) -> None:
    limiter = SlowLimiter(before=2, after=2)
    limiter.rates.charge(KEY, 600, 0, reserved=0)
    assert limiter.level == -500
    budget = TokenBudget(KEY, 100, 0, limiter)
    charge = asyncio.create_task(budget.require(90))
    await turns(cancelled_after)
    charge.cancel()
    await asyncio.wait([charge])
    budget.settle(0)
    await turns(8)
    assert limiter.level == -500


@pytest.mark.parametrize("cancelled_after", [1, 4])
async def test_a_request_that_is_cancelled_during_its_admission_gives_its_tokens_back(cancelled_after: int) -> None:
    limiter = SlowLimiter(before=2, after=2)
    admission = asyncio.create_task(admit(limiter, KEY, 60))
    await turns(cancelled_after)
    admission.cancel()
    await asyncio.wait([admission])
    await turns(8)
    assert limiter.level == 100


async def test_parts_of_one_request_are_charged_once_each() -> None:
    limiter = SlowLimiter(before=2, after=2)
    assert await run(limiter, [Request(10, [30, 20, 33], None)]) == 83
    assert limiter.level == 17


@pytest.mark.parametrize(("estimate", "others", "level"), [(0, 0, 0), (80, 0, 0), (0, 30, -30), (0, 130, -30)])
async def test_a_request_with_more_tokens_than_its_key_may_ever_use_costs_a_minutes_worth_if_there_is_any(
    estimate: int, others: int, level: int
) -> None:
    limiter = SlowLimiter(before=1)
    reserved = await admit(limiter, KEY, estimate)
    limiter.rates.charge(KEY, others, 0, reserved=reserved)
    budget = TokenBudget(KEY, 100, reserved, limiter)
    for _ in range(2):
        with pytest.raises(PayloadTooLargeError, match="at least 101 tokens"):
            await budget.require(101)
    budget.settle(0)
    assert limiter.level == level
