"""Ages of the trainings' latest heartbeats, measured by the tracker's clock: workers' clocks may differ."""

from __future__ import annotations

from collections.abc import Callable, Collection

from serve_app.jobs.job_record import JobRecord


class HeartbeatAges:
    """The time since the latest heartbeat of each job that has not ended; a new tracker starts at zero."""

    def __init__(self, uptime: Callable[[], float]) -> None:
        """Takes a monotonic clock in seconds."""
        self._uptime = uptime
        self._since: dict[str, tuple[object, float]] = {}

    def seconds(self, record: JobRecord) -> float:
        """Seconds since the job's training wrote something, was started, or got what it waited for.

        Counted from the first call for the job; called at every reconciliation.
        """
        now = self._uptime()
        state = (record.submission_id, record.read_bytes, record.pending_reason is None)
        known, since = self._since.get(record.id, (None, now))
        if known != state:
            since = now
            self._since[record.id] = (state, since)
        return now - since

    def keep_only(self, job_ids: Collection[str]) -> None:
        """Forgets all other jobs."""
        self._since = {job_id: since for job_id, since in self._since.items() if job_id in job_ids}
