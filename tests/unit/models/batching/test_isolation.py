from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from serve_app.domain.errors import InternalError, NonFiniteError, OutOfMemoryError, ServiceError
from serve_app.models.batching.isolation import is_out_of_memory, observing_memory, run_isolated


class Compute:
    """Doubles numbers; raises if a poisonous one is among them or if there are more than fit."""

    def __init__(self, poison: Sequence[int] = (), fits: float = math.inf, error: Exception | None = None) -> None:
        self.calls: list[list[int]] = []
        self.releases = 0
        self._poison, self._fits, self._error = set(poison), fits, error or RuntimeError("poison")

    def __call__(self, items: Sequence[int]) -> list[int | ServiceError]:
        self.calls.append(list(items))
        if len(items) > self._fits:
            raise MemoryError
        if self._poison & set(items):
            raise self._error
        return [2 * item for item in items]

    def release(self) -> None:
        self.releases += 1


def test_what_does_not_fail_is_computed_in_one_call() -> None:
    compute = Compute()
    assert run_isolated(compute, range(9)) == [2 * i for i in range(9)]
    assert len(compute.calls) == 1


def test_nothing_is_computed_for_nothing() -> None:
    compute = Compute(error=AssertionError("called"))
    assert run_isolated(compute, []) == []
    assert compute.calls == []


@pytest.mark.parametrize("count", [1, 2, 3, 8, 13])
def test_a_failing_text_fails_alone_at_any_position(count: int) -> None:
    for bad in range(count):
        results = run_isolated(Compute([bad]), range(count))
        assert [2 * i for i in range(count) if i != bad] == [r for r in results if not isinstance(r, ServiceError)]
        assert isinstance(results[bad], InternalError)


def test_several_failing_texts_fail_and_only_they() -> None:
    bad = {0, 5, 6, 30}
    results = run_isolated(Compute(sorted(bad)), range(31))
    assert {i for i, result in enumerate(results) if isinstance(result, InternalError)} == bad
    assert [r for i, r in enumerate(results) if i not in bad] == [2 * i for i in range(31) if i not in bad]


@pytest.mark.parametrize("count", [1, 2, 7, 64, 100])
def test_the_search_for_one_failing_text_costs_two_calls_for_each_halving(count: int) -> None:
    for bad in (0, count // 2, count - 1):
        compute = Compute([bad])
        run_isolated(compute, range(count))
        assert len(compute.calls) <= 1 + 2 * math.ceil(math.log2(count))


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_even_if_every_text_fails_the_number_of_calls_is_less_than_twice_their_number(count: int) -> None:
    compute = Compute(range(count))
    assert all(isinstance(result, InternalError) for result in run_isolated(compute, range(count)))
    assert len(compute.calls) == 2 * count - 1


@pytest.mark.parametrize("fits", [1, 2, 3, 7])
def test_without_memory_the_batch_is_split_until_it_fits_and_memory_is_released_before(fits: int) -> None:
    compute = Compute(fits=fits)
    assert run_isolated(compute, range(11), release_memory=compute.release) == [2 * i for i in range(11)]
    assert compute.releases == sum(len(call) > fits for call in compute.calls) > 0


def test_only_splits_for_lack_of_memory_are_observed() -> None:
    splits: list[int] = []
    with observing_memory(lambda: splits.append(1)):
        run_isolated(Compute(fits=4), range(8))
        run_isolated(Compute([1]), range(4))  # a bad text
        run_isolated(Compute(fits=0), [1])  # alone: a smaller micro-batch would not help
    run_isolated(Compute(fits=4), range(8))
    assert splits == [1]


def test_a_text_that_alone_runs_out_of_memory_has_that_error() -> None:
    compute = Compute([3], error=MemoryError())
    results = run_isolated(compute, range(5), release_memory=compute.release)
    failure = results[3]
    assert isinstance(failure, OutOfMemoryError)
    assert failure.status == 503
    assert [r for i, r in enumerate(results) if i != 3] == [0, 2, 4, 8]


def test_memory_is_released_only_if_it_was_short() -> None:
    compute = Compute([1])
    run_isolated(compute, range(4), release_memory=compute.release)
    assert compute.releases == 0


def test_an_expected_error_keeps_its_kind_and_message() -> None:
    error = NonFiniteError("no finite vector")
    assert run_isolated(Compute([0], error=error), [0]) == [error]


def test_an_unexpected_error_keeps_its_type_and_message_for_the_log() -> None:
    (failure,) = run_isolated(Compute([0], error=ValueError("shape")), [0])
    assert isinstance(failure, InternalError)
    assert failure.message == "ValueError: shape"


def test_errors_in_place_of_results_are_kept_and_not_tried_again() -> None:
    error = NonFiniteError("no finite vector")
    calls = []

    def compute(items: Sequence[int]) -> list[int | ServiceError]:
        calls.append(items)
        return [error if item == 1 else item for item in items]

    assert run_isolated(compute, [0, 1, 2]) == [0, error, 2]
    assert len(calls) == 1


def test_cancellation_is_not_taken_for_a_failure() -> None:
    def compute(_: Sequence[int]) -> list[int | ServiceError]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_isolated(compute, [1, 2])


class OutOfMemoryErrorOfTorch(RuntimeError):
    pass


OutOfMemoryErrorOfTorch.__name__ = "OutOfMemoryError"


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (OutOfMemoryErrorOfTorch("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_lack_of_memory_is_distinguished_from_other_failures(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) is is_memory
