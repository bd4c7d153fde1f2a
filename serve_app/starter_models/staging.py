"""Atomic creation of model folders, with one builder at a time."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from serve_app.domain.files import flush_folder
from serve_app.starter_models.starter_error import StarterError

LOCK_FILE = ".starter.lock"


@contextmanager
def only_builder(models_dir: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock for building starter models in a folder; wait if another process has it.

    The kernel releases the lock when its holder dies. The lock file itself stays: removing it would let two
    processes hold locks on two files of one name.

    Args:
        models_dir: created if it does not exist.
        waiting: called once if another process has the lock.
    """
    models_dir.mkdir(parents=True, exist_ok=True)
    with (models_dir / LOCK_FILE).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """An empty folder beside ``target`` that becomes ``target`` at the end, and vanishes if the body raises.

    Use it inside ``only_builder``: staging folders of earlier processes, which were killed, are removed.

    Args:
        target: the folder to be; its parent exists.

    Raises:
        StarterError: ``target`` exists by now and is not empty. It is left as it is.
    """
    _remove_abandoned(target)
    staging = target.with_name(f".staging-{target.name}-{os.getpid()}")
    staging.mkdir()
    try:
        yield staging
        flush_folder(staging)
        _publish(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _publish(staging: Path, target: Path) -> None:
    try:
        staging.rename(target)  # atomic within one file system, and refuses a target that holds anything
    except OSError as error:
        if target.exists():
            raise StarterError(f"{target} appeared while the model was built; it is left as it is") from error
        raise


def _remove_abandoned(target: Path) -> None:
    ours = re.compile(rf"\.staging-{re.escape(target.name)}-\d+")
    for path in target.parent.iterdir():
        if ours.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
