"""Durable files: writes that readers see whole or not at all, and errors that name the problem of the disk."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serve_app.domain.errors import StorageError
from serve_app.domain.files import replace_file

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 4 * 1024 * 1024
_START_OF_A_LINE = b'{"'  # of JSON lines


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turns an ``OSError`` into a ``StorageError`` with a message for the operator."""
    try:
        yield
    except OSError as error:
        logger.error("job folders: %s", error)
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageError("the disk with the job folders is full: delete old jobs or make room") from error
        raise StorageError(f"the job folders cannot be used: {error.strerror or error}") from error


def write(path: Path, data: bytes) -> None:
    """Writes a file and waits until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, data: bytes) -> None:
    """Replaces a file: a reader sees the old or the new content, also after a crash."""
    replace_file(path, data)


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json_lines(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Reads whole lines of a file that another process may be appending to.

    A line without its end is left for the next call. A writer that was killed leaves half a line, and what the next
    writer appends joins it: then the whole one at the end is read. Anything else that is not a JSON object is skipped.

    Args:
        path: May be missing: no lines.
        offset: In bytes, from an earlier call.

    Returns:
        At most about 4 MiB of lines, and the offset to go on from.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            chunk = file.read(_CHUNK_BYTES)
    except FileNotFoundError:
        return [], offset
    end = chunk.rfind(b"\n") + 1
    if not end and len(chunk) == _CHUNK_BYTES:
        return [], offset + len(chunk)  # no line of ours is that long
    lines = [line for raw in chunk[:end].splitlines() if (line := _object(raw)) is not None]
    return lines, offset + end


def _object(raw: bytes) -> dict[str, Any] | None:
    starts = [0]
    while (start := raw.find(_START_OF_A_LINE, starts[-1] + 1)) > 0:
        starts.append(start)
    for start in starts:
        try:
            value = json.loads(raw[start:])
        except (ValueError, RecursionError):
            continue
        return value if isinstance(value, dict) else None
    return None
