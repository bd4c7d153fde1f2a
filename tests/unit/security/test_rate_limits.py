from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.security.api_keys import ApiKey
from serve_app.security.rate_limits import Bucket, Rates

HASH = "0" * 64


def limited(requests: int | None = None, tokens: int | None = None, name: str = "a") -> ApiKey:
    return ApiKey(name, HASH, requests_per_minute=requests, tokens_per_minute=tokens)


def admitted(rates: Rates, key: ApiKey, times: list[float]) -> list[float]:
    return [now for now in times if not rates.admit(key, now).wait_s]


def test_a_minutes_worth_may_come_at_once_and_then_as_much_as_flows_in() -> None:
    rates = Rates()
    key = limited(requests=6)  # one in ten seconds
    assert admitted(rates, key, [100.0] * 20) == [100.0] * 6
    assert rates.admit(key, 100.0).wait_s == 10
    assert rates.admit(key, 104.0).wait_s == 6
    assert admitted(rates, key, [109.9, 110.0, 110.1, 125.0, 130.0]) == [110.0, 125.0, 130.0]
    assert admitted(rates, key, [10_000.0] * 20) == [10_000.0] * 6


def test_a_refusal_costs_nothing() -> None:
    rates = Rates()
    key = limited(requests=1)
    assert rates.admit(key, 0).wait_s == 0
    assert [rates.admit(key, 0).wait_s for _ in range(50)] == [60] * 50
    assert rates.admit(key, 60).wait_s == 0


def test_tokens_are_taken_on_credit_and_the_debt_is_paid_before_the_next_request() -> None:
    rates = Rates()
    key = limited(tokens=600)  # ten a second
    assert rates.admit(key, 0).wait_s == 0
    rates.charge(key, 599, 0, reserved=0)
    assert rates.admit(key, 0).wait_s == 0
    rates.charge(key, 5000, 0, reserved=0)
    assert rates.admit(key, 0).wait_s == pytest.approx(500.0)
    assert rates.admit(key, 499.8).wait_s > 0
    assert rates.admit(key, 500.0).wait_s == 0


def test_the_longer_of_two_waits_counts_and_a_request_without_tokens_left_is_not_counted() -> None:
    rates = Rates()
    key = limited(requests=2, tokens=60)
    assert rates.admit(key, 0).wait_s == 0
    rates.charge(key, 70, 0, reserved=0)
    assert rates.admit(key, 0).wait_s == pytest.approx(11)
    assert rates.admit(key, 11).wait_s == 0
    assert rates.admit(key, 11).wait_s == pytest.approx(19)  # the second request is there 30 s after the first


def test_an_estimate_is_reserved_raised_and_what_is_left_of_it_given_back() -> None:
    rates = Rates()
    key = limited(tokens=60)
    first = rates.admit(key, 0, estimate=40)
    second = rates.admit(key, 0, estimate=40)
    assert (first.reserved, second.reserved) == (40, 20)  # an estimate takes what is there, and no credit
    assert rates.admit(key, 0).wait_s == 1
    assert rates.charge(key, 10, 0, reserved=second.reserved) == 0  # without its own 20 there are 20
    assert rates.charge(key, 1, 0, reserved=5) == 6  # the others have left nothing
    rates.settle(key, 0, 0, reserved=first.reserved)
    rates.settle(key, 30, 0, reserved=30)
    assert rates.admit(key, 0, estimate=99).reserved == 30
    rates.settle(key, 0, 0, reserved=10**6)
    assert rates.admit(key, 0, estimate=99).reserved == 60  # never more than a minute's worth


@given(
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80), st.booleans()), max_size=30),
    st.randoms(use_true_random=False),
)
def test_requests_that_run_in_any_order_spend_at_most_the_limit_and_one_request_and_give_back_the_rest(
    sizes: list[tuple[int, int, bool]], random: Random
) -> None:
    rates, key, spent = Rates(), limited(tokens=100), list[int]()
    admitted = [(used, fails, rates.admit(key, 0, estimate=estimate)) for estimate, used, fails in sizes]
    running = [(used, fails, admission.reserved) for used, fails, admission in admitted if not admission.wait_s]
    random.shuffle(running)
    for used, fails, reserved in running:
        extra = used - reserved
        is_charged = extra <= 0 or not rates.charge(key, extra, 0, reserved=reserved)
        spent.append(used if is_charged and not fails else 0)
        rates.settle(key, spent[-1], 0, reserved=max(used, reserved) if is_charged else reserved)
    assert sum(spent) <= 100 + max(spent, default=0)
    left = rates.admit(key, 0, estimate=100)
    assert left.reserved == max(0, 100 - sum(spent))
    assert left.wait_s == pytest.approx(max(0, 1 - 100 + sum(spent)) * 60 / 100)


def test_keys_do_not_share_and_a_changed_limit_begins_anew() -> None:
    rates = Rates()
    assert rates.admit(limited(requests=1), 0).wait_s == 0
    assert rates.admit(limited(requests=1, name="b"), 0).wait_s == 0
    assert rates.admit(limited(requests=1), 0).wait_s > 0
    assert admitted(rates, limited(requests=3), [0.0] * 9) == [0.0] * 3


def test_a_key_without_limits_is_never_refused() -> None:
    rates = Rates()
    rates.charge(limited(), 10**9, 0, reserved=0)
    assert admitted(rates, limited(), [0.0] * 50) == [0.0] * 50


@given(
    per_minute=st.integers(1, 500),
    gaps=st.lists(st.floats(0, 30), min_size=1, max_size=80),
)
def test_no_stretch_of_time_sees_more_than_a_minutes_worth_and_what_flows_in(
    per_minute: int, gaps: list[float]
) -> None:
    rates, now, times = Rates(), 0.0, []
    for gap in gaps:
        now += gap
        times.append(now)
    passed = admitted(rates, limited(requests=per_minute), times)
    for i, first in enumerate(passed):
        for j, last in enumerate(passed[i:], 1):
            assert j <= per_minute + (last - first) * per_minute / 60 + 1e-3


@given(level=st.floats(-1e6, 60), per_minute=st.integers(60, 10_000))
def test_after_the_wait_there_is_one(level: float, per_minute: int) -> None:
    bucket = Bucket(per_minute, level, 5.0)
    assert bucket.at(5.0 + bucket.wait_s()).wait_s() == pytest.approx(0, abs=1e-6)


def test_a_clock_that_goes_back_changes_nothing() -> None:
    bucket = Bucket(60, 3.0, 100.0)
    assert bucket.at(50.0) == bucket
