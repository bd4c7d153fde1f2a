"""Limits and timeouts of fine-tuning jobs."""

from __future__ import annotations

from dataclasses import dataclass, field

from serve_app.jobs.retry_policy import RetryPolicy


@dataclass(frozen=True)
class JobPolicy:
    """Limits and timeouts of the tracker.

    Attributes:
        max_concurrent_jobs: Jobs that have a Ray Job at once; the others are queued.
        max_waiting_jobs: With this many jobs that have not ended, a submission is answered with 429.
        retry_policy: Lost attempts after which a job fails.
        heartbeat_timeout_s: A training that runs, or could, and reports nothing for so long is stopped and restarted.
        stop_s: Time that a cancellation waits for the Ray Job to end; Ray itself kills after three seconds. Together
            with ``log_s`` it stays below the ten seconds in which a cancellation is answered.
        log_s: Time that Ray has to return a log.
        poll_s: Between two polls of a Ray Job that is being stopped.
        slow_start_s: A Ray Job that reports nothing for so long after its start may lack resources.
    """

    max_concurrent_jobs: int = 1
    max_waiting_jobs: int = 100
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    heartbeat_timeout_s: float = 3600.0
    stop_s: float = 7.0
    log_s: float = 1.5
    poll_s: float = 0.2
    slow_start_s: float = 30.0
