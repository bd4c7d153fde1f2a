"""Observation of another tracker's lease: the time since its renewal, by this tracker's monotonic clock."""

from __future__ import annotations

from collections.abc import Callable

from serve_app.jobs.lease_file import LeaseState

_MAX_STEP_S = 2.0  # that one poll may add: a tracker that was suspended itself has not observed a longer pause


class LeaseObserver:
    """The latest lease that was read, and for how long it has stayed the same."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Takes a monotonic clock in seconds."""
        self._clock = clock
        self._seen: LeaseState | None = None
        self._seen_at = 0.0
        self._unchanged_s = 0.0

    @property
    def holder_name(self) -> str:
        """The name of the latest lease's holder."""
        seen = self._seen
        return seen.holder.name if seen is not None and seen.holder is not None else "another service"

    def restart(self, lease: LeaseState | None) -> None:
        """Counts from now on, from a lease that was just read."""
        self._seen, self._unchanged_s, self._seen_at = lease, 0.0, self._clock()

    def unchanged_s(self, lease: LeaseState) -> float:
        """Seconds for which the lease has had the same number and content; called at every poll."""
        now = self._clock()
        if self._seen is None or (self._seen.number, self._seen.content) != (lease.number, lease.content):
            self.restart(lease)
        else:
            self._unchanged_s += min(now - self._seen_at, _MAX_STEP_S)
            self._seen_at = now
        return self._unchanged_s
