"""A training that no longer owns its job ends itself and writes nothing."""

from __future__ import annotations

import errno
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.lease import LEASE_TIMEOUT_S, Lease
from serve_app.jobs.lease_file import LeaseHolder
from serve_app.jobs.training_spec import ATTEMPT_VARIABLE, LEASE_VARIABLE, TrainingKind
from tests.training_lines import read_lines
from tests.unit.training.training_jobs import make_job, of_type
from training import __main__ as program
from training.job_run import train
from training.ownership import SECONDS_BETWEEN_CHECKS, Claim, Ownership
from training.publication import publish
from training.reporting import Reporter
from training.trainer import ray_train
from training.trainer.heartbeat import heartbeat
from training.training_errors import OwnershipLostError

RECORD = JobRecord("job", "tuned", "base", TrainingKind.FULL, created_at=0.0, attempts=2)


def take_lease(jobs_dir: Path, cluster: str) -> Lease:
    """The lease, after its present holder has been silent for long enough by a clock that jumps ahead."""
    clock = count(0.0, LEASE_TIMEOUT_S)
    lease = Lease(
        jobs_dir, LeaseHolder(cluster, f"service {cluster}"), clock=lambda: next(clock), has_ended=lambda _: False
    )
    while lease.poll() is None:
        pass
    return lease


def write_record(job_dir: Path, record: JobRecord = RECORD) -> None:
    (job_dir / "job.json").write_text(record.to_json())


@pytest.fixture
def job_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "job"
    folder.mkdir()
    write_record(folder)
    take_lease(tmp_path, "a")
    return folder


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        (Claim("a", 2), None),
        (Claim("a", 3), None),  # the tracker has not written it down yet
        (Claim("a"), None),
        (Claim(), None),
        (Claim(None, 1), None),
        (Claim("a", 1), "attempt 2 has replaced attempt 1"),
        (Claim("b", 2), "its jobs folder is managed by service a now"),
    ],
)
def test_a_training_continues_for_the_holder_of_the_lease_only(job_dir: Path, claim: Claim, reason: str | None) -> None:
    ownership = Ownership(job_dir, claim)
    if reason is None:
        ownership.check()
        return
    with pytest.raises(OwnershipLostError, match=reason) as lost:
        ownership.check()
    assert pickle.loads(pickle.dumps(lost.value)).reason == lost.value.reason


@pytest.mark.parametrize("status", [JobStatus.CANCELLED, JobStatus.FAILED, None])
def test_a_job_that_has_ended_or_is_deleted_is_not_trained(job_dir: Path, status: JobStatus | None) -> None:
    if status is None:
        shutil.rmtree(job_dir)
    else:
        write_record(job_dir, replace(RECORD, status=status))
    with pytest.raises(OwnershipLostError):
        Ownership(job_dir, Claim("a", 2)).check()


@pytest.mark.parametrize("unreadable", [".lease", "job/job.json"])
def test_an_unreadable_file_does_not_end_a_training(tmp_path: Path, job_dir: Path, unreadable: str) -> None:
    path = tmp_path / unreadable
    shutil.rmtree(path) if path.is_dir() else path.write_text("{")
    Ownership(job_dir, Claim("a", 2)).check()


def test_ownership_is_read_every_two_seconds_and_before_steps_that_cannot_be_undone(job_dir: Path) -> None:
    now = 100.0
    ownership = Ownership(job_dir, Claim("a", 2), clock=lambda: now)
    reporter = Reporter(JobFolder(job_dir).updates_file, ownership=ownership)
    reporter.heartbeat()
    take_lease(job_dir.parent, "b")
    now += SECONDS_BETWEEN_CHECKS - 0.1
    reporter.heartbeat()
    for end in (
        reporter.done,
        lambda: reporter.failed("no"),
        lambda: reporter.published(model_name="x", folder=job_dir),
    ):
        with pytest.raises(OwnershipLostError):
            end()
    now += SECONDS_BETWEEN_CHECKS
    with pytest.raises(OwnershipLostError):
        reporter.heartbeat()
    assert read_lines(job_dir) == []


@pytest.mark.parametrize("is_late", [False, True], ids=["between two steps", "before publication"])
def test_a_training_that_loses_its_job_ends_without_a_result(
    tmp_path: Path, e5_tiny: Path, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    spec, job_dir = make_job(tmp_path, e5_tiny)
    take_lease(tmp_path, "a")
    now = 0.0
    reporter = Reporter(JobFolder(job_dir).updates_file, ownership=Ownership(job_dir, Claim("a", 1), clock=lambda: now))

    def another_takes_over(step: int, loss: float) -> None:
        nonlocal now
        if step == (4 if is_late else 2):
            take_lease(tmp_path, "b")
            now += 0 if is_late else SECONDS_BETWEEN_CHECKS

    with pytest.raises(OwnershipLostError):
        train(spec, job_dir, reporter, on_checkpoint=another_takes_over)
    lines = read_lines(job_dir)
    assert [line["step"] for line in of_type(lines, "checkpoint")] == ([2, 4] if is_late else [2])
    assert not {line["type"] for line in lines} & {"published", "done", "failed"}
    assert not (spec.result_dir).exists()


@pytest.mark.parametrize(
    "say",
    [
        lambda reporter: reporter.keep_alive(),
        lambda reporter: reporter.event("info", "?"),
        lambda reporter: reporter.metrics("after", {}),
        lambda reporter: reporter.checkpoint(7),
    ],
)
def test_a_training_that_hung_while_it_lost_its_job_adds_no_line(
    job_dir: Path, say: Callable[[Reporter], None]
) -> None:
    now = 0.0
    ownership = Ownership(job_dir, Claim("a", 2), clock=lambda: now)
    reporter = Reporter(JobFolder(job_dir).updates_file, ownership=ownership)
    reporter.heartbeat()
    take_lease(job_dir.parent, "b")
    now += SECONDS_BETWEEN_CHECKS
    with pytest.raises(OwnershipLostError):
        say(reporter)
    with heartbeat(reporter):
        pass
    assert read_lines(job_dir) == []


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_training_that_fails_removes_half_a_checkpoint_only_while_the_job_is_its_own(
    job_dir: Path, is_lost: bool
) -> None:
    half = job_dir / "checkpoints" / "checkpoint-7"
    half.mkdir(parents=True)
    ownership = Ownership(job_dir, Claim("a", 2))
    if is_lost:
        take_lease(job_dir.parent, "b")
    outcome = ray_train._outcome(OSError(errno.ENOENT, "gone"), job_dir, ownership, is_first=True)
    assert (set(outcome), half.exists()) == ({"lost"} if is_lost else {"failed"}, is_lost)


def test_a_job_that_is_lost_before_training_begins_keeps_its_files(tmp_path: Path, e5_tiny: Path) -> None:
    spec, job_dir = make_job(tmp_path, e5_tiny)
    half = job_dir / "checkpoints" / "checkpoint-7"
    half.mkdir(parents=True)
    (job_dir / "gave_up.txt").write_text("of the owner")
    take_lease(tmp_path, "b")
    reporter = Reporter(JobFolder(job_dir).updates_file, ownership=Ownership(job_dir, Claim("a", 1)))
    for begin in (
        lambda: ray_train.train_on_ray(spec, job_dir, Claim("a", 1)),
        lambda: train(spec, job_dir, reporter),
    ):
        with pytest.raises(OwnershipLostError):
            begin()
    assert half.exists()
    assert (job_dir / "gave_up.txt").exists()


def test_a_driver_that_loses_its_job_after_publication_removes_nothing(
    tmp_path: Path, e5_tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, job_dir = make_job(tmp_path, e5_tiny)
    take_lease(tmp_path, "a")
    spec.staging_dir.mkdir(parents=True)
    publish(spec.staging_dir, spec, {}, {}, job_dir=job_dir)
    (job_dir / "checkpoints").mkdir()
    reporter = Reporter(JobFolder(job_dir).updates_file, ownership=Ownership(job_dir, Claim("a", 1)))
    monkeypatch.setattr(reporter, "published", lambda **_: take_lease(tmp_path, "b"))
    with pytest.raises(OwnershipLostError):
        program.run(job_dir, reporter)
    assert (job_dir / "checkpoints").is_dir()


def test_a_driver_that_lost_its_job_writes_nothing(
    tmp_path: Path, e5_tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, job_dir = make_job(tmp_path, e5_tiny)
    take_lease(tmp_path, "b")
    monkeypatch.setenv(LEASE_VARIABLE, "a")
    monkeypatch.setenv(ATTEMPT_VARIABLE, "1")
    monkeypatch.setattr(program, "_log_to", lambda _: None)
    monkeypatch.setattr(program, "_start_ray", lambda: pytest.fail("it has nothing to train"))
    assert program.main([str(job_dir)]) == 1
    assert read_lines(job_dir) == []
