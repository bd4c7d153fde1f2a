"""The heartbeat of a training between its other updates."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from serve_app.jobs.job_events import event_of
from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.job_updates import JobUpdate, UpdateType
from tests.training_lines import read_lines
from tests.unit.jobs.job_examples import RUNNING, folded
from training.reporting import Reporter
from training.trainer.heartbeat import heartbeat


class CountingReporter(Reporter):
    """Counts its heartbeats; the disk is full at the second."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.beats = 0

    def keep_alive(self) -> None:
        self.beats += 1
        super().keep_alive()
        if self.beats == 2:
            raise OSError("no space")

    def wait_for_beats(self, count: int) -> None:
        """Returns after this many further heartbeats, when the last one is written.

        Raises:
            TimeoutError: They take too long.
        """
        wanted, deadline = self.beats + count + 1, time.monotonic() + 30
        while self.beats < wanted:
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.001)


def test_progressing_work_has_a_heartbeat_even_if_the_disk_was_full_for_a_moment(tmp_path: Path) -> None:
    reporter = CountingReporter(JobFolder(tmp_path).updates_file)
    with heartbeat(reporter, every_s=0.001):
        for count in (1, 2, 3):
            reporter.wait_for_beats(3)
            assert [line["type"] for line in read_lines(tmp_path)] == ["event"] * count
            reporter.heartbeat()
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


def test_hanging_work_has_no_heartbeat_although_its_process_lives(tmp_path: Path) -> None:
    reporter = CountingReporter(JobFolder(tmp_path).updates_file)
    with heartbeat(reporter, every_s=0.001):
        reporter.wait_for_beats(1)
        written = len(read_lines(tmp_path))
        reporter.wait_for_beats(20)
        assert len(read_lines(tmp_path)) == written == 1


def test_a_heartbeat_is_recorded_and_not_shown(tmp_path: Path) -> None:
    Reporter(JobFolder(tmp_path).updates_file, clock=lambda: 5000.0).keep_alive()
    (line,) = read_lines(tmp_path)
    event = JobUpdate.of_line(line, now=0.0)
    assert event is not None
    assert event.type is UpdateType.EVENT
    record = folded(event, record=RUNNING)
    assert event_of(event, record) is None
    assert (record.last_heartbeat_at, record.message, record.events) == (5000.0, RUNNING.message, RUNNING.events)


def test_a_worker_that_does_not_report_has_no_heartbeat() -> None:
    with heartbeat(Reporter(None), every_s=0.001):
        assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]
