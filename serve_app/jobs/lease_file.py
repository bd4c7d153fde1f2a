"""Lease files of a jobs folder: numbered files in ``JOBS_DIR/.lease``, the highest number counts.

A renewal overwrites a file in place, with the same number of bytes, so that a full disk does not end it; a reader that
sees half of that knows no holder until the next renewal.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from serve_app.domain.files import PRIVATE_FILE

LEASE_FOLDER = ".lease"  # of the jobs folder; a job's folder has no dot in front
_DIGITS = 12
_CONTENT_BYTES = 2048  # of each lease, filled up with blanks: a renewal needs no new room on the disk
_READS = 5  # a lease that is listed may be removed before it is read


@dataclass(frozen=True)
class LeaseHolder:
    """A job tracker.

    Attributes:
        cluster: Identity of its Ray cluster, the same for all trackers that this cluster has one after the other.
        name: Description for people.
        process: The process that ends with the cluster on this machine, see ``process_identity.raylet_process``; None
            where the system does not identify it. Not the tracker's own: Ray replaces a tracker that dies.
    """

    cluster: str
    name: str
    process: str | None = None


@dataclass(frozen=True)
class LeaseState:
    """The content of a lease file.

    Attributes:
        number: The fencing token; each new holder has a higher one.
        content: The file's bytes; they change with every renewal.
        holder: None if the file cannot be read: its writer died while it wrote.
        is_released: Its holder has released it.
    """

    number: int
    content: bytes
    holder: LeaseHolder | None = None
    is_released: bool = False


def current_lease(jobs_dir: Path) -> LeaseState | None:
    """The lease with the highest number; None if the folder has no lease.

    Raises:
        OSError: The folder cannot be read.
    """
    folder = jobs_dir / LEASE_FOLDER
    for _ in range(_READS):
        if not (number := highest_number(folder)):
            return None
        try:
            return _parse(number, lease_path(folder, number).read_bytes())
        except FileNotFoundError:  # a new holder has just removed it
            continue
    raise FileNotFoundError(f"the lease in {folder} changes faster than it can be read")


def write_lease(path: Path, holder: LeaseHolder, *, renewals: int, is_released: bool, creates: bool) -> None:
    """Overwrites a lease file in place, or creates it exclusively.

    Raises:
        FileExistsError: It is to be created and exists.
        FileNotFoundError: It is to be overwritten and does not exist.
        OSError: It cannot be written; a file that was to be created does not remain.
    """
    values = {**asdict(holder), "renewals": renewals, "released": is_released}
    content = json.dumps(values).encode().ljust(_CONTENT_BYTES - 1) + b"\n"
    flags = os.O_WRONLY | os.O_NOFOLLOW | (os.O_CREAT | os.O_EXCL if creates else 0)
    descriptor = os.open(path, flags, PRIVATE_FILE)
    try:
        try:
            if os.pwrite(descriptor, content, 0) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)  # NFS reports only here that the disk is full
    except OSError:
        if creates:  # a file without content would delay all trackers, this one included
            path.unlink(missing_ok=True)
        raise


def lease_path(folder: Path, number: int) -> Path:
    """The file of the lease with a number."""
    return folder / f"{number:0{_DIGITS}d}"


def highest_number(folder: Path) -> int:
    """The highest number of a lease; 0 without leases.

    Raises:
        OSError: The folder cannot be read.
    """
    try:
        return max((int(name) for name in os.listdir(folder) if name.isdecimal()), default=0)
    except FileNotFoundError:
        return 0


def _parse(number: int, content: bytes) -> LeaseState:
    try:
        values = json.loads(content)
        process = values.get("process")
        holder = LeaseHolder(str(values["cluster"]), str(values["name"]), None if process is None else str(process))
        return LeaseState(number, content, holder, values.get("released") is True)
    except (ValueError, KeyError, TypeError, AttributeError):
        return LeaseState(number, content)
