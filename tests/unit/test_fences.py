"""The fences of conftest.py hold."""

from __future__ import annotations

import asyncio
import importlib
import socket
import sys
from types import SimpleNamespace

import pytest

from tests.unit.conftest import put_up_fences

Fenced = pytest.fail.Exception


def test_the_fence_is_no_exception_that_error_handling_could_swallow() -> None:
    assert not issubclass(Fenced, Exception)


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("127.0.0.1", 1)])
def test_no_socket_connects(address: tuple[str, int]) -> None:
    with socket.socket() as connection:
        with pytest.raises(Fenced, match="connects"):
            connection.connect(address)
        with pytest.raises(Fenced, match="connects"):
            connection.connect_ex(address)
    with pytest.raises(Fenced, match="connects"):
        socket.create_connection(address)


async def test_no_socket_connects_through_asyncio() -> None:
    with pytest.raises(Fenced, match="connects"):
        await asyncio.open_connection("127.0.0.1", 1)


def test_ray_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = SimpleNamespace(init=lambda: "started")
    monkeypatch.setitem(sys.modules, "ray", ray)  # type: ignore[arg-type]
    put_up_fences(monkeypatch)
    with pytest.raises(Fenced, match="starts Ray"):
        ray.init()


def test_ray_is_not_imported_behind_the_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    put_up_fences(monkeypatch)
    with pytest.raises(Fenced, match="imports Ray"):
        importlib.import_module("ray")
