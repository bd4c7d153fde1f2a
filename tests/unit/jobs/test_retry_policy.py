"""Which losses count, and when they are too many."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serve_app.jobs.job_record import JobStatus
from serve_app.jobs.job_updates import JobUpdate, UpdateType
from serve_app.jobs.retry_policy import RetryPolicy, final_failure
from tests.unit.jobs.job_examples import IN_EVERY_STATE, RUNNING, STARTED, SUBMITTED, event, folded

LOST, INTERRUPTED = event(UpdateType.LOST), event(UpdateType.INTERRUPTED)


@pytest.mark.parametrize(
    ("loss", "status", "counted"),
    [
        (LOST, JobStatus.PENDING, (1, 0)),
        (LOST, JobStatus.RUNNING, (1, 0)),
        (INTERRUPTED, JobStatus.PENDING, (0, 0)),  # it has not begun, so it cannot be the one that did it
        (INTERRUPTED, JobStatus.RUNNING, (0, 1)),
    ],
)
def test_a_loss_counts_for_what_the_job_may_have_done_itself(
    loss: JobUpdate, status: JobStatus, counted: tuple[int, int]
) -> None:
    lost = folded(loss, record=IN_EVERY_STATE[status])
    assert (lost.failed_attempts, lost.interruptions) == counted


@pytest.mark.parametrize("loss", [LOST, INTERRUPTED], ids=lambda loss: loss.type)
def test_losses_are_counted_until_an_attempt_gets_further(loss: JobUpdate) -> None:
    def counted(*events: JobUpdate) -> int:
        record = folded(*events, record=twice)
        return record.failed_attempts + record.interruptions

    checkpoint = event(UpdateType.CHECKPOINT, step=50)
    twice = folded(checkpoint, loss, SUBMITTED, STARTED, loss, record=RUNNING)
    assert counted() == 2
    assert counted(SUBMITTED, STARTED, checkpoint) == 2, "the same checkpoint is no progress"
    assert counted(SUBMITTED, STARTED, event(UpdateType.CHECKPOINT, step=51)) == 0


@pytest.mark.parametrize(
    ("failed_attempts", "interruptions", "loss", "status", "why"),
    [
        (1, 9, LOST, JobStatus.RUNNING, None),
        (2, 0, LOST, JobStatus.RUNNING, "and so 3 attempts in a row were lost"),
        (2, 0, LOST, JobStatus.PENDING, "and so 3 attempts in a row were lost"),
        (2, 8, INTERRUPTED, JobStatus.RUNNING, None),
        (0, 9, INTERRUPTED, JobStatus.RUNNING, "10 times in a row while this job was under way"),
        (2, 9, INTERRUPTED, JobStatus.PENDING, None),
    ],
)
def test_a_job_is_given_up_after_three_deaths_or_ten_restarts_that_it_was_there_for(
    failed_attempts: int, interruptions: int, loss: JobUpdate, status: JobStatus, why: str | None
) -> None:
    record = replace(IN_EVERY_STATE[status], failed_attempts=failed_attempts, interruptions=interruptions)
    found = final_failure(record, loss.type, RetryPolicy())
    assert found is None if why is None else (found or "").startswith(why)
