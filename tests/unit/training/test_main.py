"""The program of a job: how it ends."""

from __future__ import annotations

import errno
import logging
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, LocalRayletDiedError, RaySystemError
from ray.exceptions import OutOfMemoryError as RayOutOfMemoryError

from serve_app.jobs.training_spec import CLUSTER_VARIABLE
from tests.training_lines import read_lines
from tests.unit.training.training_jobs import make_job
from training import __main__ as program
from training.publication import publish
from training.reporting import Reporter


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    handlers = list(logging.getLogger().handlers)
    yield
    for handler in set(logging.getLogger().handlers) - set(handlers):
        logging.getLogger().removeHandler(handler)
        handler.close()


START_RAY = program._start_ray


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_start_ray", lambda: pytest.fail("this job has nothing to train"))


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["no/such/folder"]])
def test_a_wrong_call_shows_the_right_one(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(arguments) == 2
    assert "python -m training JOB_DIR" in capsys.readouterr().err


@pytest.mark.parametrize("spec", [None, "{", "[]", "{}", '{"job_id": "j", "surprise": 1}'])
def test_a_job_without_a_readable_spec_fails_with_a_reason(tmp_path: Path, spec: str | None) -> None:
    if spec is not None:
        (tmp_path / "spec.json").write_text(spec)
    assert program.main([str(tmp_path)]) == 1
    (line,) = read_lines(tmp_path)
    assert line["type"] == "failed"
    assert line["reason"].startswith("the job's spec.json cannot be read")


def test_a_taken_name_fails_before_anything_is_trained(tmp_path: Path, e5_tiny: Path) -> None:
    spec, job_dir = make_job(tmp_path, e5_tiny)
    (spec.result_dir).mkdir()
    assert program.main([str(job_dir)]) == 1
    (line,) = read_lines(job_dir)
    assert "exists already" in line["reason"]


def test_a_job_that_died_after_its_result_was_published_is_done(tmp_path: Path, e5_tiny: Path) -> None:
    spec, job_dir = make_job(tmp_path, e5_tiny)
    spec.staging_dir.mkdir(parents=True)
    publish(spec.staging_dir, spec, {}, {}, job_dir=job_dir)
    (job_dir / "checkpoints").mkdir()
    assert program.main([str(job_dir)]) == 0
    assert [line["type"] for line in read_lines(job_dir)] == ["published", "done"]
    assert not (job_dir / "checkpoints").exists()


def test_the_last_line_is_the_outcome_of_a_training(
    tmp_path: Path, e5_tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, job_dir = make_job(tmp_path, e5_tiny)
    (job_dir / "spec.json").write_text(replace(spec, model_name="other").to_json())
    monkeypatch.setattr(program, "_start_ray", raising(ArithmeticError("no such number")))
    assert program.main([str(job_dir)]) == 1
    assert read_lines(job_dir)[-1]["reason"] == "unexpected ArithmeticError: no such number"
    assert "no such number" in (job_dir / "logs" / "driver.log").read_text()


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("no cluster"),
        RaySystemError("the raylet is gone"),
        LocalRayletDiedError(),
        ActorDiedError(),
        RayOutOfMemoryError("10 worker(s) were killed due to the node running low on memory"),
        SystemExit(signal.SIGTERM),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_driver_that_lost_its_cluster_reports_no_outcome(
    tmp_path: Path, e5_tiny: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    spec, job_dir = make_job(tmp_path, e5_tiny)
    (job_dir / "spec.json").write_text(replace(spec, model_name="other").to_json())
    monkeypatch.setattr(program, "_start_ray", raising(error))
    try:
        code: object = program.main([str(job_dir)])
    except SystemExit as end:  # what Ray makes of SIGTERM
        code = end.code
    assert code
    assert read_lines(job_dir) == []


def test_a_failure_that_cannot_be_written_down_is_no_traceback(
    tmp_path: Path, e5_tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, job_dir = make_job(tmp_path, e5_tiny)
    (job_dir / "spec.json").write_text(replace(spec, model_name="other").to_json())
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(program, "_start_ray", raising(full))
    monkeypatch.setattr(Reporter, "failed", lambda *_: raising(full)())
    assert program.main([str(job_dir)]) == 1
    assert read_lines(job_dir) == []


@pytest.mark.parametrize(
    ("environment", "joined"),
    [
        ({CLUSTER_VARIABLE: "mine:1", "RAY_ADDRESS": "last-started:2"}, "mine:1"),
        ({"RAY_ADDRESS": "only:2"}, "only:2"),
        ({}, "local"),
    ],
)
def test_a_driver_joins_the_cluster_that_started_it_and_not_the_last_one_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], joined: str
) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("ray.init", lambda **options: calls.append(options))
    for name in (CLUSTER_VARIABLE, "RAY_ADDRESS"):
        monkeypatch.setenv(name, "")  # so that what the driver sets is undone
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    START_RAY()
    (options,) = calls
    assert options["address"] == joined
    if environment:
        assert os.environ["RAY_ADDRESS"] == options["runtime_env"]["env_vars"]["RAY_ADDRESS"] == joined


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail
