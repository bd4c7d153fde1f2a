"""How long trainings have been silent: measured here, by what they have written, whatever the clocks of workers say."""

from __future__ import annotations

from collections.abc import Callable, Collection

from serve_app.jobs.job_record import JobRecord


class HeartbeatAges:
    """The silence of each job that has not ended. A new tracker has heard nothing yet and starts at zero."""

    def __init__(self, uptime: Callable[[], float]) -> None:
        """Takes a monotonic clock in seconds."""
        self._uptime = uptime
        self._since: dict[str, tuple[object, float]] = {}

    def seconds(self, record: JobRecord) -> float:
        """Seconds since the job's training wrote something, was started, or got what it waited for.

        Counted from the first time that this is asked about the job; to be asked at every look.
        """
        now = self._uptime()
        heard = (record.submission_id, record.read_bytes, record.pending_reason is None)
        known, since = self._since.get(record.id, (None, now))
        if known != heard:
            since = now
            self._since[record.id] = (heard, since)
        return now - since

    def keep_only(self, job_ids: Collection[str]) -> None:
        """Forgets all other jobs."""
        self._since = {job_id: since for job_id, since in self._since.items() if job_id in job_ids}
