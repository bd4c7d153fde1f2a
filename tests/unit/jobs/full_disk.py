"""A disk without room: new files fail; what a file has already may be overwritten, except on copy-on-write systems."""

from __future__ import annotations

import errno
import os
from typing import Any, NoReturn

import pytest


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on no file is created by ``os.open``, nor by ``tempfile``."""
    really_open = os.open

    def open_if_there(path: Any, flags: int, *args: Any, **options: Any) -> int:
        return _fail() if flags & os.O_CREAT else really_open(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", open_if_there)


def fail_overwriting(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a file may be created, but stays empty."""
    monkeypatch.setattr(os, "pwrite", _fail)


def _fail(*_: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
