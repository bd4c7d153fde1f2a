"""The record of a job: its text, and what is refused as one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.job_updates import UpdateType
from serve_app.jobs.training_spec import TrainingKind
from tests.unit.jobs.job_examples import IN_EVERY_STATE, NEW, RUNNING, event, folded, spec


@pytest.mark.parametrize("record", IN_EVERY_STATE.values(), ids=IN_EVERY_STATE)
def test_a_record_is_the_same_after_its_way_through_a_file(record: JobRecord) -> None:
    assert JobRecord.from_json(record.to_json()) == record


def test_metrics_survive_the_way_through_a_file() -> None:
    measured = event(UpdateType.METRICS, when="before", **{"ndcg@10": 0.5, "queries": 7})
    record = folded(measured, record=RUNNING)
    assert JobRecord.from_json(record.to_json()).metrics_before == {"ndcg@10": 0.5, "queries": 7}


def test_the_states_that_are_ends_are_three() -> None:
    assert [status for status in JobStatus if status.is_terminal] == ["completed", "failed", "cancelled"]


@pytest.mark.parametrize(("kind", "type_"), [("full", "full"), ("lora", "lora"), ("qlora", "lora")])
def test_a_record_knows_what_its_spec_says(kind: str, type_: str) -> None:
    record = JobRecord.of_spec(spec(kind=TrainingKind(kind)), created_at=5.0, accepted=3, ignored=1)
    assert (record.id, record.model_name, record.base_model) == ("a-job", "my-e5", "multilingual-e5-small")
    assert (record.type, record.kind, record.created_at) == (type_, kind, 5.0)
    assert (record.status, record.progress, record.accepted, record.ignored) == (JobStatus.PENDING, 0.0, 3, 1)


def altered(**values: Any) -> str:
    return json.dumps(json.loads(NEW.to_json()) | values)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        NEW.to_json()[:-40],
        altered(status="paused"),
        altered(kind="half"),
        altered(progress=None),
        altered(progress="7"),
        altered(progress=True),
        altered(attempts=1.5),
        altered(metrics_before=[1]),
        altered(published=1),
        altered(id=None),
    ],
)
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        JobRecord.from_json(text)


def test_a_field_of_a_newer_version_does_no_harm() -> None:
    assert JobRecord.from_json(altered(colour="red")) == NEW
