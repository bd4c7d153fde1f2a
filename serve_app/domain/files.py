"""Atomic replacement of files and safe removal of folders, even where other users can write.

The name of a temporary file is random and the file must not exist before (``O_EXCL``, ``O_NOFOLLOW``), so that a link
that another user of the machine has put there beforehand is never written through.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
_SHARED = stat.S_ISVTX | stat.S_ISGID


def replace_file(path: Path, data: bytes, *, mode: int = PRIVATE_FILE, durable: bool = True) -> None:
    """Replaces a file: a reader sees the old or the new content, never a part of it.

    Args:
        path: A link of this name is replaced, not followed.
        data: The whole content.
        mode: Permission bits of the result.
        durable: Whether to wait until the content is on the disk.

    Raises:
        OSError: Nothing has changed, and nothing is left of the attempt.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            if durable:
                os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def flush_folder(folder: Path) -> None:
    """Writes the files of a folder to disk; call it before a rename or a marker declares them complete."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def remove(path: Path) -> None:
    """Removes a file, a folder with all that is in it, or a link (never what it leads to); errors are ignored."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except OSError:  # a folder
        shutil.rmtree(path, ignore_errors=True)


def make_private_folder(path: Path) -> None:
    """Makes a folder that only its user can enter; one that exists is closed to others, too.

    A folder with the sticky or the setgid bit is shared on purpose and stays as it is, as does one that belongs to
    another user.

    Raises:
        OSError: It cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    status = path.stat()
    if status.st_uid == os.geteuid() and status.st_mode & 0o077 and not status.st_mode & _SHARED:
        path.chmod(status.st_mode & 0o7700)
