"""The fold: every pair of state and event, and what must hold whatever happens."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.errors import IllegalTransitionError
from serve_app.jobs.job_events import event_of
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.job_states import TRANSITIONS, advance
from serve_app.jobs.job_updates import TRACKER_UPDATES, JobUpdate, UpdateType
from tests.unit.jobs.job_examples import IN_EVERY_STATE, NEW, RUNNING, STARTED, SUBMITTED, event, folded

P, R, C, F, X = JobStatus
LAW = {  # written a second time, by hand: a change of the law must be wanted twice
    "submitted": {P: P},
    "waiting": {P: P},
    "stopping": {P: P, R: R},
    "lost": {P: P, R: P},
    "interrupted": {P: P, R: P},
    "cancelled": {P: X, R: X},
    "started": {P: R, R: R},
    "progress": {P: R, R: R},
    "checkpoint": {P: R, R: R},
    "metrics": {P: R, R: R},
    "event": {P: R, R: R},
    "published": {P: R, R: R},
    "failed": {P: F, R: F},
    "done": {P: C, R: C},
}


@pytest.mark.parametrize("status", JobStatus)
@pytest.mark.parametrize("type_", UpdateType)
def test_every_event_in_every_state_leads_where_the_law_says(status: JobStatus, type_: UpdateType) -> None:
    record = IN_EVERY_STATE[status]
    target = LAW[type_].get(status)
    assert TRANSITIONS[status].get(type_) == target
    if target is None:
        with pytest.raises(IllegalTransitionError, match=status):
            advance(record, event(type_))
    else:
        assert advance(record, event(type_)).status is target


@pytest.mark.parametrize("said", [STARTED, event(UpdateType.PROGRESS, step=7), event(UpdateType.PUBLISHED)])
def test_the_last_words_of_a_lost_attempt_make_nothing_run(said: JobUpdate) -> None:
    lost = folded(event(UpdateType.LOST), said, record=RUNNING)
    assert (lost.status, lost.pending_reason) == (JobStatus.PENDING, "queued")
    again = folded(event(UpdateType.WAITING, reason="waiting for 1 GPU"), SUBMITTED, STARTED, record=lost)
    assert (again.status, again.attempts) == (JobStatus.RUNNING, 2)


def test_the_law_names_every_state() -> None:
    assert set(TRANSITIONS) == set(JobStatus)


anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400)
names = st.sampled_from(
    ["step", "total_steps", "epoch", "loss", "learning_rate", "tokens_per_second", "seconds_left", "resumed_step",
     "device", "reason", "when", "level", "message", "ndcg@10", "submission_id", "train_pairs"]
)  # fmt: skip
events = st.builds(
    JobUpdate, st.sampled_from(UpdateType), st.floats(0, 1e9), st.dictionaries(names, anything, max_size=6)
)


@given(st.lists(events, max_size=12))
def test_whatever_comes_progress_never_falls_and_a_record_stays_a_record(happened: list[JobUpdate]) -> None:
    record = NEW
    for each in happened:
        try:
            after = advance(record, each)
        except IllegalTransitionError:
            assert record.status.is_terminal or each.type in TRACKER_UPDATES
            continue
        assert record.progress <= after.progress <= 100
        assert (after.ended_at is not None) == after.status.is_terminal
        assert JobRecord.from_json(after.to_json()) == after
        note = event_of(each, after)
        assert note is None or (note.message and note.level in {"info", "warning", "error"})
        record = after


@given(st.lists(st.integers(0, 200), max_size=20))
def test_progress_is_the_furthest_step_and_below_100_until_it_is_done(steps: list[int]) -> None:
    record = folded(*(event(UpdateType.PROGRESS, step=step, total_steps=100) for step in steps), record=RUNNING)
    assert record.progress == pytest.approx(0.99 * min(max(steps, default=0), 100), abs=0.051)
    assert folded(event(UpdateType.DONE), record=record).progress == 100


# ------------------------------------------------------------------ what the training says


def test_progress_is_told() -> None:
    said = event(
        UpdateType.PROGRESS, 130.0, step=25, total_steps=100, epoch=0.25, loss=1.5, learning_rate=1e-4,
        tokens_per_second=900, seconds_left=30,
    )  # fmt: skip
    record = folded(said, record=RUNNING)
    assert (record.steps, record.total_steps, record.epoch, record.loss) == (25, 100, 0.25, 1.5)
    assert (record.learning_rate, record.tokens_per_second, record.seconds_left) == (1e-4, 900, 30)
    assert (record.message, record.last_heartbeat_at) == ("training: step 25 of 100, loss 1.5000", 130.0)


@pytest.mark.parametrize("loss", [math.nan, math.inf, "1", None, True])
def test_a_loss_that_is_no_number_is_absent_rather_than_wrong(loss: Any) -> None:
    record = folded(event(UpdateType.PROGRESS, step=1, loss=loss), record=RUNNING)
    assert record.loss is None
    assert "loss" not in record.message
    json.loads(record.to_json(), parse_constant=pytest.fail)


def test_training_starts_once_in_the_record_and_resumes_where_it_says() -> None:
    assert (RUNNING.status, RUNNING.started_at, RUNNING.train_pairs, RUNNING.eval_pairs) == ("running", 120.0, 36, 4)
    again = event(UpdateType.STARTED, 300.0, total_steps=100, resumed_step=50, device="cuda")
    record = folded(event(UpdateType.LOST), SUBMITTED, again, record=RUNNING)
    assert (record.started_at, record.steps, record.device, record.attempts) == (120.0, 50, "cuda", 2)


def test_a_lost_job_waits_to_be_started_again_and_says_from_where() -> None:
    lost = folded(
        event(UpdateType.CHECKPOINT, step=50), event(UpdateType.LOST, reason="the driver died"), record=RUNNING
    )
    assert (lost.status, lost.submission_id, lost.pending_reason) == ("pending", None, "queued")
    assert lost.message == "the driver died; training will resume from step 50"


def test_a_checkpoint_has_the_time_at_which_it_was_first_there() -> None:
    first, again = event(UpdateType.CHECKPOINT, 210.0, step=50), event(UpdateType.CHECKPOINT, 300.0, step=50)
    record = folded(first, again, record=RUNNING)
    assert (record.checkpoint, record.checkpoint_at) == (50, 210.0)


def test_what_a_pending_job_waits_for_is_told_until_it_runs() -> None:
    waiting = folded(event(UpdateType.WAITING, reason="waiting for 1 GPU"))
    assert waiting.status is JobStatus.PENDING
    assert waiting.pending_reason == waiting.message == "waiting for 1 GPU"
    assert folded(SUBMITTED, STARTED, record=waiting).pending_reason is None


@pytest.mark.parametrize(
    ("before", "after", "says", "level"),
    [
        (0.6, 0.7, "nDCG@10 on the held-out examples rose from 0.600 to 0.700", "info"),
        (
            0.7,
            0.6,
            "WORSE than its base 'multilingual-e5-small': nDCG@10 on the held-out examples fell from",
            "warning",
        ),
        (0.6, 0.6, "is as it was, 0.600", "info"),
        (None, 0.6, "its quality was not measured", "info"),
    ],
)
def test_a_completed_job_says_whether_it_made_its_model_better(
    before: float | None, after: float, says: str, level: str
) -> None:
    done = event(UpdateType.DONE)
    record = folded(
        event(UpdateType.METRICS, when="before", **{"ndcg@10": before}),
        event(UpdateType.METRICS, when="after", **{"ndcg@10": after}),
        done,
        record=RUNNING,
    )
    assert says in record.message
    note = event_of(done, record)
    assert note is not None
    assert (note.level, note.message) == (level, record.message)


@pytest.mark.parametrize(
    ("sparse", "colbert", "says", "level"),
    [
        (0.5, 0.9, "served as 'my-e5'; nDCG@10 on the held-out examples: dense rose from 0.600 to 0.700, sparse rose "
                   "from 0.400 to 0.500, ColBERT is as it was, 0.900", "info"),
        (0.3, 0.9, "WORSE than its base 'multilingual-e5-small' by its sparse head: nDCG@10", "warning"),
        (0.3, 0.8, "by its sparse and ColBERT heads: nDCG@10", "warning"),
    ],
)  # fmt: skip
def test_a_completed_job_judges_every_head_of_its_model(sparse: float, colbert: float, says: str, level: str) -> None:
    before = {"ndcg@10": 0.6, "sparse_ndcg@10": 0.4, "colbert_ndcg@10": 0.9}
    after = {"ndcg@10": 0.7, "sparse_ndcg@10": sparse, "colbert_ndcg@10": colbert}
    measured = [event(UpdateType.METRICS, when=when, **m) for when, m in (("before", before), ("after", after))]
    record = folded(*measured, event(UpdateType.DONE), record=RUNNING)
    assert says in record.message
    note = event_of(event(UpdateType.DONE), record)
    assert note is not None
    assert note.level == level


def test_a_lasting_warning_is_part_of_the_last_message_once_and_of_the_record() -> None:
    warning = event(UpdateType.EVENT, level="warning", message="the model has COLLAPSED", lasting=True)
    passing = event(UpdateType.EVENT, level="warning", message="memory ran out")
    record = folded(warning, passing, warning, event(UpdateType.PUBLISHED), event(UpdateType.DONE), record=RUNNING)
    assert record.warning == "the model has COLLAPSED"
    assert record.message.endswith("was not measured. WARNING: the model has COLLAPSED")
    note = event_of(event(UpdateType.DONE), record)
    assert note is not None
    assert note.level == "warning"


def test_a_failed_job_gives_the_reason_of_the_training() -> None:
    record = IN_EVERY_STATE[JobStatus.FAILED]
    assert (record.error, record.message) == ("the loss is not finite", "failed: the loss is not finite")


# ------------------------------------------------------------------ lines and notes


@pytest.mark.parametrize(
    "line", [{}, {"type": 5}, {"type": "party"}, *({"type": word.value} for word in TRACKER_UPDATES)]
)
def test_the_training_cannot_speak_with_words_that_are_not_its_own(line: dict[str, Any]) -> None:
    assert JobUpdate.of_line(line, now=7.0) is None


@pytest.mark.parametrize(("time", "at"), [(3.5, 3.5), (None, 7.0), ("x", 7.0), (math.nan, 7.0)])
def test_a_line_without_a_time_happened_now(time: Any, at: float) -> None:
    happened = JobUpdate.of_line({"type": "done", "time": time}, now=7.0)
    assert happened is not None
    assert happened.time == at


def test_a_training_that_has_something_to_tell_waits_for_nothing_any_more() -> None:
    waiting = folded(SUBMITTED, event(UpdateType.WAITING, reason="waiting for 1 CPU"))
    record = folded(event(UpdateType.EVENT, level="info", message="measuring the base"), record=waiting)
    assert (record.message, record.pending_reason, record.status) == ("measuring the base", None, JobStatus.RUNNING)


def test_progress_is_no_news_and_everything_else_is_numbered() -> None:
    assert event_of(event(UpdateType.PROGRESS, step=1), RUNNING) is None
    assert event_of(event(UpdateType.EVENT), RUNNING) is None
    note = event_of(event(UpdateType.EVENT, 5.0, level="warning", message="out of memory, halved"), RUNNING)
    assert note is not None
    assert (note.id, note.time, note.level, note.message) == (1, 5.0, "warning", "out of memory, halved")
