from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from serve_app.domain import errors
from serve_app.domain.errors import InternalError, QueueFullError, ServiceError, error_of


def subclasses(cls: type[ServiceError]) -> Iterator[type[ServiceError]]:
    for sub in cls.__subclasses__():
        yield from (sub, *subclasses(sub))


ERRORS = [cls for cls in subclasses(ServiceError) if cls.__module__ == errors.__name__]


@pytest.mark.parametrize("cls", ERRORS)
def test_an_error_survives_the_way_between_processes(cls: type[ServiceError]) -> None:
    came = pickle.loads(pickle.dumps(cls("too much", retry_after_s=2.5, item=7)))
    assert type(came) is cls
    assert (came.message, came.retry_after_s, came.item, str(came)) == ("too much", 2.5, 7, "too much")


@pytest.mark.parametrize("cls", ERRORS)
def test_an_error_without_details_keeps_those_of_its_class(cls: type[ServiceError]) -> None:
    came = pickle.loads(pickle.dumps(cls("no")))
    assert (came.retry_after_s, came.item) == (cls.retry_after_s, None)


def test_a_message_that_was_changed_on_the_way_stays_changed() -> None:
    error = ServiceError("too long")
    error.message = f"items[3]: {error.message}"
    assert pickle.loads(pickle.dumps(error)).message == "items[3]: too long"


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in ERRORS]
    assert sorted(set(codes)) == sorted(codes)


@pytest.mark.parametrize("cls", ERRORS)
def test_an_error_is_found_again_by_its_code(cls: type[ServiceError]) -> None:
    came = error_of(cls.code, "no", retry_after_s=3.0, item=1)
    assert type(came) is cls
    assert (came.message, came.retry_after_s, came.item) == ("no", 3.0, 1)


def test_an_unknown_code_is_an_internal_error() -> None:
    assert type(error_of("from_the_future", "no")) is InternalError


def test_temporary_errors_have_a_retry_time() -> None:
    assert {cls.code for cls in ERRORS if cls.retry_after_s} == {"queue_full", "unavailable", "jobs_read_only"}
    assert error_of("queue_full", "full").retry_after_s == QueueFullError.retry_after_s


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("capability_missing", 400),
        ("model_not_found", 404),
        ("deadline_passed", 408),
        ("payload_too_large", 413),
        ("invalid_input", 422),
        ("queue_full", 429),
        ("internal_error", 500),
        ("non_finite", 500),
        ("out_of_memory", 503),
        ("unavailable", 503),
    ],
)
def test_statuses_are_those_of_the_contract(code: str, status: int) -> None:
    assert error_of(code, "no").status == status
