"""Why a replica cannot start is kept until one starts in its place."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from serve_app.deployments import startup_failures
from serve_app.deployments.operator_log import log_startup_failure
from serve_app.domain.errors import UnavailableError


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, bytes]:
    """The key-value store of a cluster."""
    store: dict[bytes, bytes] = {}

    def delete(key: bytes, *, del_by_prefix: bool = False) -> None:
        for name in [name for name in store if name == key or (del_by_prefix and name.startswith(key))]:
            del store[name]

    replaced: dict[str, Callable[..., object]] = {
        "_internal_kv_put": store.__setitem__,
        "_internal_kv_get": store.get,
        "_internal_kv_list": lambda prefix: [name for name in store if name.startswith(prefix)],
        "_internal_kv_del": delete,
    }
    for name, function in replaced.items():
        monkeypatch.setattr(startup_failures, name, function)
    return store


def fail(what: str) -> None:
    with pytest.raises(UnavailableError), log_startup_failure(what):
        raise UnavailableError(f"{what} lacks a file")


@pytest.mark.usefixtures("store")
def test_a_later_success_withdraws_only_its_own_reason() -> None:
    for what in ("the encoder of 'a'", "the encoder of 'ab'"):
        fail(what)
    with log_startup_failure("the encoder of 'a'"):  # it is loaded, and has no forward yet
        pass
    with log_startup_failure("the encoder of 'a'", is_last=True):
        assert len(startup_failures.reported()) == 2
    assert startup_failures.reported() == {"the encoder of 'ab'": "the encoder of 'ab' lacks a file"}
    startup_failures.clear()
    assert startup_failures.reported() == {}


def test_a_start_continues_if_the_store_does_not_answer(
    store: dict[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no cluster")

    for name in ("_internal_kv_put", "_internal_kv_del"):
        monkeypatch.setattr(startup_failures, name, fails)
    fail("the ingress")
    with log_startup_failure("the ingress", is_last=True):
        pass
    assert store == {}
