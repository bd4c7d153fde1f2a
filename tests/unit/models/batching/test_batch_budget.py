"""The budget of micro-batches: what memory and time allow."""

from __future__ import annotations

import itertools

import pytest

from serve_app.models.batching.batch_budget import BatchBudget


def test_without_trouble_the_budget_is_the_configured_one() -> None:
    budget = BatchBudget(16_384)
    for seconds in (0.01, 5.0, 500.0):
        budget.observe(16_384, seconds)
        assert budget.tokens == 16_384


def test_after_a_lack_of_memory_the_budget_is_half_of_what_did_not_fit_and_grows_slowly() -> None:
    budget = BatchBudget(16_384)
    budget.shrink(16_000)
    assert budget.tokens == 8000
    seen = [budget.tokens]
    while budget.tokens < 16_384:
        budget.observe(budget.tokens, 0.05)
        seen.append(budget.tokens)
    assert 20 <= len(seen) <= 64
    assert max(after - before for before, after in itertools.pairwise(seen)) <= 16_384 / 64 + 1


def test_small_micro_batches_say_nothing_about_the_memory_for_large_ones() -> None:
    budget = BatchBudget(16_384)
    budget.shrink(16_384)
    for _ in range(100):
        budget.observe(100, 0.01)
    assert budget.tokens == 8192


def test_the_budget_never_falls_below_one_token() -> None:
    budget = BatchBudget(4)
    for _ in range(5):
        budget.shrink(1)
    assert budget.tokens == 1


@pytest.mark.parametrize(
    ("tokens_per_s", "settled"), [(100, (100, 200)), (2300, (2300, 4600)), (10**6, (32_768, 32_768))]
)
def test_a_forward_of_several_texts_never_takes_much_longer_than_it_should(
    tokens_per_s: int, settled: tuple[int, int]
) -> None:
    """From the first one on: before anything was measured, the budget is small."""
    budget = BatchBudget(32_768, max_seconds=2.0)
    for _ in range(20):
        seconds = budget.tokens / tokens_per_s
        assert seconds <= max(2.0, 512 / tokens_per_s)
        budget.observe(budget.tokens, seconds)
    assert settled[0] <= budget.tokens <= settled[1]


def test_after_one_slow_long_text_four_of_them_do_not_go_together() -> None:
    """On a CPU, 8,192 tokens take 21 s: attention is quadratic, so short texts of as many tokens are quicker."""
    budget = BatchBudget(32_768, max_seconds=2.0)
    for _ in range(10):
        budget.observe(budget.tokens, budget.tokens / 2300)
    assert budget.tokens < 8192, "each is over the budget, and goes alone"
    budget.observe(8192, 21.5)
    assert budget.tokens == int(8192 * 2 / 21.5)


def test_one_slow_forward_does_not_bound_a_device_that_has_only_small_micro_batches_ever_since() -> None:
    """A text of 10 tokens that took 6 s, say because the machine was swapping; the ones after it take 5 ms."""
    budget = BatchBudget(384, max_seconds=2.0)
    budget.observe(10, 6.0)
    assert budget.tokens == 64, "never less: so few tokens cost little beside a forward itself"
    for _ in range(12):
        budget.observe(10, 0.005)
    assert budget.tokens == 384


@pytest.mark.parametrize(("forwards", "tokens"), [(1, 512), (2, 1024), (20, 2000)])
def test_small_micro_batches_let_the_budget_grow_stepwise_to_what_their_speed_allows(
    forwards: int, tokens: int
) -> None:
    """10 tokens in 10 ms are 2000 in 2 s, and a larger micro-batch is quicker for each token."""
    budget = BatchBudget(32_768, max_seconds=2.0)
    budget.observe(512, 1.9)
    for _ in range(8):
        budget.observe(10, 1.0)  # slow, but not too slow: says nothing good
    assert budget.tokens == 512
    for _ in range(7 + forwards - 1):
        budget.observe(10, 0.01)
    assert 512 <= budget.tokens <= tokens
    if forwards == 20:
        assert budget.tokens == tokens
