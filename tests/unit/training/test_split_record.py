"""A resumed job whose examples are split in another way than before measures its base again and reports it."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.job_updates import JobUpdate
from tests.training_lines import read_lines
from tests.unit.training.training_jobs import make_job
from training import measurement
from training.data.split_record import SPLIT_CHANGED
from training.job import load_job
from training.reporting import Reporter


@pytest.mark.parametrize(
    ("split_before", "measured", "warnings"),
    [
        ("the same", [0.25], []),
        ("another version's", [0.25, 0.75], [SPLIT_CHANGED]),
        (None, [0.25, 0.75], [SPLIT_CHANGED]),
    ],
)
def test_metrics_of_the_base_count_for_the_split_that_they_were_measured_on(
    tmp_path: Path,
    e5_tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    split_before: str | None,
    measured: list[float],
    warnings: list[str],
) -> None:
    spec, job_dir = make_job(tmp_path, e5_tiny)
    reporter = Reporter(JobFolder(job_dir).updates_file)
    values = iter([0.25, 0.75])
    monkeypatch.setattr(measurement, "load_base", lambda *_: None)
    monkeypatch.setattr(measurement, "evaluate", lambda *_, **__: {"ndcg@10": next(values)})
    job = load_job(spec, job_dir)
    measurement.measure_base(job, reporter)
    if split_before is None:
        JobFolder(job_dir).split_file.unlink()
    elif split_before != "the same":
        JobFolder(job_dir).split_file.write_text(split_before)
    for _ in range(2):  # a later attempt measures and reports nothing
        assert measurement.measure_base(job, reporter) == {"ndcg@10": measured[-1]}
    lines = read_lines(job_dir)
    assert [line["ndcg@10"] for line in lines if line["type"] == "metrics"] == measured
    assert [line["message"] for line in lines if line.get("lasting")] == warnings
    assert all(JobUpdate.of_line(line, now=0.0) is not None for line in lines)
