"""The lease of a jobs folder: of all job trackers that see the folder, one at a time may write to it.

A lease is a numbered file in ``JOBS_DIR/.lease``; the highest number counts. Its holder rewrites it every second, with
another content each time. Others compare what they read with what they read before, on their own monotonic clock: time
stamps of different machines are not compared anywhere. A file that stays the same for ``LEASE_TIMEOUT_S`` belongs to
a holder that has stopped, and the next number is created, exclusively, so that one of several successors gets it.

The number is the fencing token. A holder that was suspended and resumes finds a higher number before it writes, and
from then on only reads. The folder may be shared by NFS: only exclusive creation must be atomic, and no file is locked.
A directory listing may be cached there, so a renewal first changes the directory, its time stamp, and then lists it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from serve_app.domain.errors import JobsReadOnlyError, StorageError
from serve_app.domain.files import make_private_folder
from serve_app.jobs.durable_files import storage_errors, sync_folder
from serve_app.jobs.lease_file import (
    LEASE_FOLDER,
    LeaseHolder,
    LeaseState,
    current_lease,
    highest_number,
    lease_path,
    write_lease,
)
from serve_app.jobs.lease_observer import LeaseObserver
from serve_app.jobs.process_identity import has_ended

logger = logging.getLogger(__name__)

LEASE_TIMEOUT_S = 30.0
_RENEWAL_S = 2.0  # a holder that has not renewed for so long was suspended, and renews before it writes


class Lease:
    """One tracker's side of the lease. All methods block on the disk and may be called from any thread."""

    def __init__(
        self,
        jobs_dir: Path,
        holder: LeaseHolder,
        *,
        timeout_s: float = LEASE_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
        has_ended: Callable[[str], bool] = has_ended,
    ) -> None:
        """Touches nothing yet.

        Args:
            jobs_dir: Folder of the job folders.
            holder: This tracker.
            timeout_s: After so many seconds without a renewal the lease may be taken.
            clock: Monotonic, in seconds.
            has_ended: True for a process of this machine that has certainly ended; its lease need not time out.
        """
        self._jobs_dir = jobs_dir
        self._folder = jobs_dir / LEASE_FOLDER
        self._holder = holder
        self._timeout_s = timeout_s
        self._clock = clock
        self._has_ended = has_ended
        self._lock = threading.RLock()
        self._number: int | None = None
        self._renewals = 0
        self._renewed_at = 0.0
        self._is_first_poll = True
        self._has_released = False
        self._is_stale = False  # the last renewal failed
        self._observer = LeaseObserver(clock)

    @property
    def number(self) -> int | None:
        """The fencing token while this tracker holds the lease, as far as it knows; else None."""
        return self._number

    @property
    def holder_name(self) -> str:
        """The name of the tracker that held the lease at the last poll."""
        if self._number is not None:
            return self._holder.name
        return self._observer.holder_name

    def poll(self) -> int | None:
        """Renews the lease, or takes it if its holder has stopped; called every second.

        Returns:
            ``number`` after that.

        Raises:
            StorageError: The lease can be taken and not be written; or the folder cannot be read.
        """
        with self._lock:
            try:
                if self._number is not None:
                    self._renew_or_check()
                elif not self._has_released:
                    self._try_acquire()
                    self._is_first_poll = False
            except OSError as error:
                raise StorageError(
                    f"the lease of the fine-tuning jobs cannot be written ({error.strerror or error}), so here they "
                    "can only be read: make room on the disk with the job folders, or make them writable"
                ) from error
            return self._number

    def require(self, number: int) -> None:
        """Makes sure that this tracker holds the lease under a number; called before each write.

        Raises:
            JobsReadOnlyError: It does not, or not any more.
            StorageError: The folder cannot be read, or the lease could not be renewed for ``timeout_s``.
        """
        with self._lock, storage_errors():
            if self._number == number:
                if self._clock() - self._renewed_at > _RENEWAL_S:
                    self._renew_or_check()
                    if self._is_stale and self._clock() - self._renewed_at > self._timeout_s:
                        raise OSError("the lease cannot be renewed")
                else:
                    self._check_highest()
            if self._number != number:
                raise self.read_only_error()

    def read_only_error(self) -> JobsReadOnlyError:
        """The error for a client that changes something here."""
        return JobsReadOnlyError(
            f"the fine-tuning jobs of this folder are managed by {self.holder_name}: submit, cancel and delete there; "
            f"here they can only be read. This service takes over {self._timeout_s:g} s after that one has stopped",
            retry_after_s=self._timeout_s,
        )

    def release(self) -> None:
        """Releases the lease for good, so that a successor need not wait; later polls do not take it again."""
        with self._lock, storage_errors():
            self._has_released = True
            if self._number is None:
                return
            self._check_highest()
            if self._number is not None:
                self._write(is_released=True)
                logger.info("the lease %d of %s is released", self._number, self._jobs_dir)
            self._number = None

    # ------------------------------------------------------------------ holding

    def _renew_or_check(self) -> None:
        """Renews the lease; if it cannot be written, only checks that no other tracker has taken it."""
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
        if highest_number(self._folder) != self._number:
            logger.warning("the lease %d of %s is lost; the jobs are read-only here", self._number, self._jobs_dir)
            self._number = None
            self._observer.restart(current_lease(self._jobs_dir))

    def _write(self, *, is_released: bool = False, creates: bool = False) -> None:
        assert self._number is not None
        self._renewals += 1
        path = lease_path(self._folder, self._number)
        write_lease(path, self._holder, renewals=self._renewals, is_released=is_released, creates=creates)
        self._renewed_at = self._clock()
        self._is_stale = False

    # ------------------------------------------------------------------ taking

    def _try_acquire(self) -> None:
        make_private_folder(self._jobs_dir)
        make_private_folder(self._folder)
        newest = current_lease(self._jobs_dir)
        if newest is not None and not self._is_expired(newest):
            return
        self._number = number = 1 if newest is None else newest.number + 1
        try:
            self._write(creates=True)
        except FileExistsError:  # another one was faster
            self._number = None
            return
        except OSError:
            self._number = None
            if newest is None or not self._reuse_file(newest.number, number):
                raise
        self._renew_or_check()
        if self._number is None:  # suspended in between, and late
            return
        sync_folder(self._folder)
        self._remove_older(number)
        logger.info("the lease %d of %s is taken by %s", number, self._jobs_dir, self._holder.name)

    def _reuse_file(self, over: int, number: int) -> bool:
        """Takes the lease with the file of the expired one: a full disk has no room for another."""
        path = lease_path(self._folder, number)
        try:
            os.link(lease_path(self._folder, over), path)  # exclusive, too
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

    def _is_expired(self, lease: LeaseState) -> bool:
        """True if the holder of a lease has stopped."""
        unchanged_s = self._observer.unchanged_s(lease)
        if lease.is_released or unchanged_s > self._timeout_s:
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
