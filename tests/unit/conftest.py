"""Fences around unit tests: no Ray, no network. And the tiny models, built once in a session."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest
from hypothesis import settings

from tests.tiny_models import build_bge_m3_tiny, build_e5_tiny

settings.register_profile("unit", max_examples=60, deadline=None)  # a busy machine is no failure
settings.load_profile("unit")


@pytest.fixture(autouse=True)
def _fences(monkeypatch: pytest.MonkeyPatch) -> None:
    put_up_fences(monkeypatch)


def put_up_fences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a test fail that connects a socket or starts Ray.

    It fails with ``pytest.fail``, which is no ``Exception``, so that no error handling swallows it.
    """
    monkeypatch.setattr(socket.socket, "connect", _no_network)
    monkeypatch.setattr(socket.socket, "connect_ex", _no_network)
    if "ray" in sys.modules:
        monkeypatch.setattr(sys.modules["ray"], "init", _no_cluster)  # serve.run and ray.get start Ray with it, too
    else:
        monkeypatch.setattr(sys, "meta_path", [_NoLateRay(), *sys.meta_path])


def _no_network(_: socket.socket, address: object) -> NoReturn:
    pytest.fail(f"a unit test connects to {address!r}")


def _no_cluster(*_: object, **__: object) -> NoReturn:
    pytest.fail("a unit test starts Ray")


class _NoLateRay:
    """Refuses the import of Ray inside of a test, where ``ray.init`` would come without its fence."""

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "ray":
            pytest.fail("a unit test imports Ray while it runs; import it at the top of the test's file")
        return None


@pytest.fixture(scope="session")
def e5_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "e5-tiny"
    build_e5_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def bge_m3_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "bge-m3-tiny"
    build_bge_m3_tiny(folder)
    return folder
