"""A training's ownership of its job: of two services on one jobs folder, the holder of the lease trains it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.lease_file import current_lease
from serve_app.jobs.training_spec import ATTEMPT_VARIABLE, LEASE_VARIABLE
from training.training_errors import OwnershipLostError

SECONDS_BETWEEN_CHECKS = 2.0


@dataclass(frozen=True)
class Claim:
    """The service and the attempt that a training runs for.

    Attributes:
        cluster: The Ray cluster whose tracker held the lease when it was started; None for a training by hand, which
            has no competitors.
        attempt: Of the job, counted from 1; None if unknown.
    """

    cluster: str | None = None
    attempt: int | None = None

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Claim:
        """The claim that the tracker gave to the process."""
        attempt = environment.get(ATTEMPT_VARIABLE, "")
        return cls(environment.get(LEASE_VARIABLE) or None, int(attempt) if attempt.isdecimal() else None)


class Ownership:
    """Checks a claim against the current state of the jobs folder."""

    def __init__(
        self, job_dir: Path, claim: Claim | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Does not read anything yet.

        Args:
            job_dir: The job's folder, in the jobs folder.
            claim: None for a training by hand.
            clock: Monotonic, in seconds.
        """
        self._job_dir = job_dir
        self._claim = claim or Claim()
        self._clock = clock
        self._checked_at: float | None = None
        self._lock = threading.Lock()

    def check(self, *, at_once: bool = False) -> None:
        """Checks that this training still owns the job; a file that cannot be read changes nothing.

        Args:
            at_once: Reads in any case, not only every two seconds: for use before steps that cannot be undone.

        Raises:
            OwnershipLostError: Another service or attempt trains the job, or it has ended.
        """
        if self._claim.cluster is None:
            return
        with self._lock:
            now = self._clock()
            if not at_once and self._checked_at is not None and now - self._checked_at < SECONDS_BETWEEN_CHECKS:
                return
            self._checked_at = now
        if reason := self._reason():
            self._checked_at = None  # the next call reads again
            raise OwnershipLostError(reason)

    def _reason(self) -> str | None:
        lease = _read(lambda: current_lease(self._job_dir.parent))
        if lease is not None and lease.holder is not None and lease.holder.cluster != self._claim.cluster:
            return f"its jobs folder is managed by {lease.holder.name} now"
        record: JobRecord | None = _read(JobFolder(self._job_dir).read_record)
        if record is None:
            return None if self._job_dir.is_dir() else "it was deleted"
        if record.status in (JobStatus.CANCELLED, JobStatus.FAILED):
            return f"it is {record.status} already"
        if self._claim.attempt is not None and record.attempts > self._claim.attempt:
            return f"attempt {record.attempts} has replaced attempt {self._claim.attempt}"
        return None


def _read(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except (OSError, ValueError, TypeError):
        return None
