"""Signs of life between what happens."""

from __future__ import annotations

import threading
from pathlib import Path

from serve_app.domain.job_events import EventType, JobEvent
from serve_app.domain.job_notes import note_of
from tests.unit.domain.job_examples import RUNNING, folded
from training.heartbeat import heartbeat
from training.reporting import FILE_NAME, Reporter, read_lines


class Listened(Reporter):
    """Tells when it has said ``wanted`` times that it lives; fails the first time."""

    def __init__(self, path: Path, wanted: int) -> None:
        super().__init__(path)
        self.enough = threading.Event()
        self._wanted = wanted + 1

    def alive(self) -> None:
        self._wanted -= 1
        if not self._wanted:
            self.enough.set()
            return
        super().alive()
        if self._wanted == 2:
            raise OSError("no space")


def test_a_silent_training_is_heard_until_it_ends_even_if_the_disk_was_full_for_a_moment(tmp_path: Path) -> None:
    reporter = Listened(tmp_path / FILE_NAME, wanted=3)
    with heartbeat(reporter, every_s=0.001):
        assert reporter.enough.wait(30)
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]
    assert [line["type"] for line in read_lines(tmp_path)] == ["event"] * 3


def test_a_sign_of_life_is_heard_and_not_told(tmp_path: Path) -> None:
    Reporter(tmp_path / FILE_NAME, clock=lambda: 5000.0).alive()
    (line,) = read_lines(tmp_path)
    event = JobEvent.of_line(line, now=0.0)
    assert event is not None
    assert event.type is EventType.NOTE
    record = folded(event, record=RUNNING)
    assert note_of(event, record) is None
    assert (record.heard_at, record.message, record.events) == (5000.0, RUNNING.message, RUNNING.events)


def test_a_worker_that_says_nothing_has_no_heartbeat() -> None:
    with heartbeat(Reporter(None), every_s=0.001):
        assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]
