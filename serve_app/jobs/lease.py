"""The lease of a jobs folder: of all job trackers that see the folder, one at a time may write to it.

A lease is a numbered file in ``JOBS_DIR/.lease``; the highest number counts. Its holder rewrites it every second, with
another content each time. Others compare what they read with what they read before, on their own monotonic clock: time
stamps of different machines are not compared anywhere. A file that stays the same for ``SILENCE_S`` belongs to a holder
that has stopped, and the next number is created, exclusively, so that one of several successors gets it.

The number is the fencing token. A holder that was suspended and wakes up finds a higher number before it writes, and
from then on only reads. A renewal overwrites the file in place, with the same number of bytes, so that a full disk
does not end it; a reader that sees half of that takes the holder for unknown until the next renewal. The folder may be
shared by NFS: only exclusive creation must be atomic, and no file is locked. A directory listing may be cached there,
so a renewal first changes the directory, its time stamp, and then lists it.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from serve_app.domain.errors import JobsReadOnlyError, StorageError
from serve_app.domain.files import PRIVATE_FILE, make_private_folder
from serve_app.jobs.durable_files import storage_errors, sync_folder
from serve_app.jobs.process_identity import has_ended

logger = logging.getLogger(__name__)

FOLDER = ".lease"  # of the jobs folder; a name with a dot is no job's
SILENCE_S = 30.0
_RENEWAL_S = 2.0  # a holder that has not renewed for so long was suspended, and renews before it writes
_MAX_STEP_S = 2.0  # of silence that one poll may add: who was suspended itself has not listened
_DIGITS = 12
_CONTENT_BYTES = 2048  # of each lease, filled up with blanks: a renewal needs no new room on the disk
_READS = 5  # a lease that is listed may be removed before it is read


@dataclass(frozen=True)
class LeaseHolder:
    """A job tracker.

    Attributes:
        cluster: Identity of its Ray cluster, the same for all trackers that this cluster has one after the other.
        name: For people.
        process: Whose end is the end of the cluster on this machine, see ``process_identity.raylet_process``; None
            where the system does not tell. Not the tracker's own: Ray replaces a tracker that dies.
    """

    cluster: str
    name: str
    process: str | None = None


@dataclass(frozen=True)
class LeaseState:
    """What a lease file says.

    Attributes:
        number: The fencing token; each new holder has a higher one.
        content: Of the file; it changes with every renewal.
        holder: None if the file cannot be read: its writer died while it wrote.
        is_released: Its holder has stopped on purpose.
    """

    number: int
    content: bytes
    holder: LeaseHolder | None = None
    is_released: bool = False


def current_lease(jobs_dir: Path) -> LeaseState | None:
    """The lease with the highest number; None if there is none.

    Raises:
        OSError: The folder cannot be read.
    """
    folder = jobs_dir / FOLDER
    for _ in range(_READS):
        if not (number := _highest(folder)):
            return None
        try:
            return _parse(number, _path(folder, number).read_bytes())
        except FileNotFoundError:  # a new holder has just removed it
            continue
    raise FileNotFoundError(f"the lease in {folder} changes faster than it can be read")


class Lease:
    """One tracker's side of the lease. All methods block on the disk and may be called from any thread."""

    def __init__(
        self,
        jobs_dir: Path,
        holder: LeaseHolder,
        *,
        silence_s: float = SILENCE_S,
        clock: Callable[[], float] = time.monotonic,
        has_ended: Callable[[str], bool] = has_ended,
    ) -> None:
        """Touches nothing yet.

        Args:
            jobs_dir: Folder of the job folders.
            holder: Who asks.
            silence_s: After so many seconds without a renewal the lease may be taken.
            clock: Monotonic, in seconds.
            has_ended: Whether a process of this machine has certainly ended; then nobody waits for its silence.
        """
        self._jobs_dir = jobs_dir
        self._folder = jobs_dir / FOLDER
        self._holder = holder
        self._silence_s = silence_s
        self._clock = clock
        self._has_ended = has_ended
        self._lock = threading.RLock()
        self._number: int | None = None
        self._renewals = 0
        self._renewed_at = 0.0
        self._is_first_poll = True
        self._has_resigned = False
        self._is_stale = False  # the last renewal failed
        self._seen: LeaseState | None = None
        self._seen_at = 0.0
        self._silent_s = 0.0

    @property
    def number(self) -> int | None:
        """The fencing token while this tracker holds the lease, as far as it knows; else None."""
        return self._number

    @property
    def holder_name(self) -> str:
        """The name of whoever held the lease at the last poll."""
        if self._number is not None:
            return self._holder.name
        seen = self._seen
        return seen.holder.name if seen is not None and seen.holder is not None else "another service"

    def poll(self) -> int | None:
        """Renews the lease, or takes it if its holder has stopped; to be called every second.

        Returns:
            ``number`` after that.

        Raises:
            StorageError: The lease can be taken and not be written; or the folder cannot be read.
        """
        with self._lock:
            try:
                if self._number is not None:
                    self._renew_or_check()
                elif not self._has_resigned:
                    self._try_to_take()
                    self._is_first_poll = False
            except OSError as error:
                raise StorageError(
                    f"the lease of the fine-tuning jobs cannot be written ({error.strerror or error}), so here they "
                    "can only be read: make room on the disk with the job folders, or make them writable"
                ) from error
            return self._number

    def require(self, number: int) -> None:
        """Makes sure that this tracker holds the lease under a number; to be called before each write.

        Raises:
            JobsReadOnlyError: It does not, or not any more.
            StorageError: The folder cannot be read, or the lease could not be renewed for ``silence_s``.
        """
        with self._lock, storage_errors():
            if self._number == number:
                if self._clock() - self._renewed_at > _RENEWAL_S:
                    self._renew_or_check()
                    if self._is_stale and self._clock() - self._renewed_at > self._silence_s:
                        raise OSError("the lease cannot be renewed")
                else:
                    self._check_highest()
            if self._number != number:
                raise self.read_only_error()

    def read_only_error(self) -> JobsReadOnlyError:
        """What a client is told that wants to change something here."""
        return JobsReadOnlyError(
            f"the fine-tuning jobs of this folder are managed by {self.holder_name}: submit, cancel and delete there; "
            f"here they can only be read. This service takes over {self._silence_s:g} s after that one has stopped",
            retry_after_s=self._silence_s,
        )

    def release(self) -> None:
        """Gives the lease up for good, so that a successor need not wait; later polls do not take it again."""
        with self._lock, storage_errors():
            self._has_resigned = True
            if self._number is None:
                return
            self._check_highest()
            if self._number is not None:
                self._write(is_released=True)
                logger.info("the lease %d of %s is released", self._number, self._jobs_dir)
            self._number = None

    # ------------------------------------------------------------------ holding

    def _renew_or_check(self) -> None:
        """Renews the lease; if it cannot be written, only finds out whether another tracker has taken it."""
        try:
            self._renew()
        except OSError as error:
            if not self._is_stale:
                logger.warning("the lease %s of %s cannot be renewed: %s", self._number, self._jobs_dir, error)
            self._is_stale = True
            self._check_highest()

    def _renew(self) -> None:
        with suppress(FileNotFoundError):  # a successor has removed what was being written
            self._write()
            os.utime(self._folder)  # so that a listing that NFS has cached is read again
        self._check_highest()

    def _check_highest(self) -> None:
        assert self._number is not None
        if _highest(self._folder) != self._number:
            logger.warning("the lease %d of %s is lost; the jobs are read-only here", self._number, self._jobs_dir)
            self._number = None
            self._seen = current_lease(self._jobs_dir)
            self._silent_s, self._seen_at = 0.0, self._clock()

    def _write(self, *, is_released: bool = False, creates: bool = False) -> None:
        assert self._number is not None
        self._renewals += 1
        said = {**asdict(self._holder), "renewals": self._renewals, "released": is_released}
        content = json.dumps(said).encode().ljust(_CONTENT_BYTES - 1) + b"\n"
        flags = os.O_WRONLY | os.O_NOFOLLOW | (os.O_CREAT | os.O_EXCL if creates else 0)
        path = _path(self._folder, self._number)
        descriptor = os.open(path, flags, PRIVATE_FILE)
        try:
            try:
                if os.pwrite(descriptor, content, 0) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(descriptor)  # NFS says only here that the disk is full
        except OSError:
            if creates:  # without content it would keep all trackers away for a while, this one included
                path.unlink(missing_ok=True)
            raise
        self._renewed_at = self._clock()
        self._is_stale = False

    # ------------------------------------------------------------------ taking

    def _try_to_take(self) -> None:
        make_private_folder(self._jobs_dir)
        make_private_folder(self._folder)
        newest = current_lease(self._jobs_dir)
        if newest is not None and not self._is_over(newest):
            return
        self._number = number = 1 if newest is None else newest.number + 1
        try:
            self._write(creates=True)
        except FileExistsError:  # another one was faster
            self._number = None
            return
        except OSError:
            self._number = None
            if newest is None or not self._take_file(newest.number, number):
                raise
        self._renew_or_check()
        if self._number is None:  # suspended in between, and late
            return
        sync_folder(self._folder)
        self._remove_older(number)
        logger.info("the lease %d of %s is taken by %s", number, self._jobs_dir, self._holder.name)

    def _take_file(self, over: int, number: int) -> bool:
        """Takes the lease with the file of the one that is over: on a full disk there is no room for another."""
        path = _path(self._folder, number)
        try:
            os.link(_path(self._folder, over), path)  # exclusive, too
        except OSError:
            return False
        self._number = number
        try:
            self._write()
        except OSError:
            self._number = None
            with suppress(OSError):
                path.unlink()
            return False
        return True

    def _is_over(self, lease: LeaseState) -> bool:
        """Whether the holder of a lease has stopped."""
        now = self._clock()
        if self._seen is None or (self._seen.number, self._seen.content) != (lease.number, lease.content):
            self._seen, self._silent_s = lease, 0.0
        else:
            self._silent_s += min(now - self._seen_at, _MAX_STEP_S)
        self._seen_at = now
        if lease.is_released or self._silent_s > self._silence_s:
            return True
        if (holder := lease.holder) is None:
            return False
        # Ray replaces a tracker that died; but one that has lost the lease to its successor must not take it back
        is_predecessor = self._is_first_poll and holder.cluster == self._holder.cluster
        return is_predecessor or (holder.process is not None and self._has_ended(holder.process))

    def _remove_older(self, number: int) -> None:
        for path in self._folder.iterdir():
            if not path.name.isdecimal() or int(path.name) < number:
                with suppress(OSError):
                    path.unlink()


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:0{_DIGITS}d}"


def _highest(folder: Path) -> int:
    try:
        return max((int(name) for name in os.listdir(folder) if name.isdecimal()), default=0)
    except FileNotFoundError:
        return 0


def _parse(number: int, content: bytes) -> LeaseState:
    try:
        said = json.loads(content)
        process = said.get("process")
        holder = LeaseHolder(str(said["cluster"]), str(said["name"]), None if process is None else str(process))
        return LeaseState(number, content, holder, said.get("released") is True)
    except (ValueError, KeyError, TypeError, AttributeError):
        return LeaseState(number, content)
