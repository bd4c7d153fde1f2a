"""A model folder appears whole or not at all, whatever dies in between and whoever else builds at the same time."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from serve_app.starter_models.starter_error import StarterError

LOCK_FILE = ".starter.lock"


@contextmanager
def only_builder(models_dir: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the right to build starter models in a folder; wait for it if another process has it.

    The kernel lets go of the lock when its holder dies. The lock file itself stays: removing it would let two
    processes hold locks on two files of one name.

    Args:
        models_dir: is made if it is not there.
        waiting: called once if there is another builder to wait for.
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

    To be used by the ``only_builder``: staging folders of earlier processes, which were killed, are removed.

    Args:
        target: the folder to be; its parent exists.

    Raises:
        StarterError: ``target`` is there by now and not empty. It is left as it is.
    """
    _remove_abandoned(target)
    staging = target.with_name(f".staging-{target.name}-{os.getpid()}")
    staging.mkdir()
    try:
        yield staging
        _flush(staging)
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


def _flush(folder: Path) -> None:
    """Bring the files to disk before the name does: a power cut must not leave a named folder of empty files."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _remove_abandoned(target: Path) -> None:
    ours = re.compile(rf"\.staging-{re.escape(target.name)}-\d+")
    for path in target.parent.iterdir():
        if ours.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
