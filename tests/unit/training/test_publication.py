"""A result gets its name whole or not at all, once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from serve_app.domain.manifest import MANIFEST_FILE
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.training_spec import ClientMetadata, LoraSettings, TrainingKind, TrainingSpec
from serve_app.models.fine_tunes import find_fine_tune
from training.publication import cleanup, manifest, publish, published_by
from training.training_errors import TrainingError

BEFORE_AFTER = {"before": {"ndcg@10": 0.5}, "after": {"ndcg@10": 0.75}}


@pytest.fixture
def spec(tmp_path: Path) -> TrainingSpec:
    return TrainingSpec(
        job_id="j1", model_name="tuned", base_model="base", base_folder="elsewhere", models_dir=str(tmp_path),
        family="e5", kind=TrainingKind.QLORA, lora=LoraSettings(r=8),
    )  # fmt: skip


@pytest.fixture
def staged(spec: TrainingSpec) -> Path:
    folder = spec.staging_dir
    (folder / "deep").mkdir(parents=True)
    for name in ("weights", "deep/config"):
        (folder / name).write_text("x")
        (folder / name).chmod(0o600)
    return folder


@pytest.fixture
def job_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "job"
    folder.mkdir()
    return folder


def test_a_published_result_is_found_by_the_service(
    spec: TrainingSpec, staged: Path, job_dir: Path, tmp_path: Path
) -> None:
    folder = publish(staged, spec, BEFORE_AFTER, {"train_pairs": 9, "eval_pairs": 1}, job_dir=job_dir)
    assert folder == tmp_path / "tuned"
    assert not staged.exists()
    found = find_fine_tune("tuned", tmp_path)
    assert found is not None
    assert (found.base, found.family, found.kind, found.adapter) == ("base", "e5", "qlora", True)
    assert found.manifest.metrics == BEFORE_AFTER
    assert found.manifest.data == {"train_pairs": 9, "eval_pairs": 1}
    assert found.manifest.settings is not None
    assert found.manifest.settings["lora"]["r"] == 8
    assert "elsewhere" not in (folder / MANIFEST_FILE).read_text()  # a path of the training machine stays private


def test_client_metadata_does_not_become_part_of_a_model(spec: TrainingSpec) -> None:
    described = manifest(replace(spec, origin=ClientMetadata("file-1", None, {"team": "secret"})), BEFORE_AFTER, {})
    assert "secret" not in str(described)
    assert described == replace(manifest(spec, BEFORE_AFTER, {}), created=described.created)


def test_a_published_model_is_readable_for_everyone(spec: TrainingSpec, staged: Path, job_dir: Path) -> None:
    folder = publish(staged, spec, {}, {}, job_dir=job_dir)
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o644}


@pytest.mark.parametrize("content", [None, "config.json"])
def test_a_name_that_was_taken_meanwhile_is_left_alone(
    spec: TrainingSpec, staged: Path, job_dir: Path, tmp_path: Path, content: str | None
) -> None:
    (tmp_path / "tuned").mkdir()
    if content:
        (tmp_path / "tuned" / content).touch()
    with pytest.raises(TrainingError, match="appeared while"):
        publish(staged, spec, {}, {}, job_dir=job_dir)
    assert [path.name for path in (tmp_path / "tuned").iterdir()] == ([content] if content else [])


def test_a_job_recognises_its_own_result(spec: TrainingSpec, staged: Path, job_dir: Path) -> None:
    assert published_by(spec) is None
    folder = publish(staged, spec, {}, {}, job_dir=job_dir)
    assert published_by(spec) == folder
    with pytest.raises(TrainingError, match="exists already"):
        published_by(replace(spec, job_id="j2"))


def test_the_result_of_a_worker_that_died_after_publishing_stays(
    spec: TrainingSpec, staged: Path, job_dir: Path
) -> None:
    staged_again = staged.with_name("again")
    shutil.copytree(staged, staged_again)
    folder = publish(staged, spec, {"after": {"mrr": 1.0}}, {}, job_dir=job_dir)
    assert publish(staged_again, spec, {"after": {"mrr": 0.5}}, {}, job_dir=job_dir) == folder
    assert json.loads((folder / "manifest.json").read_text())["metrics"]["after"] == {"mrr": 1.0}
    assert not staged_again.exists()


@pytest.mark.parametrize("manifest", [None, "{", "[]", "{}"])
def test_a_folder_that_is_no_fine_tune_keeps_its_name(spec: TrainingSpec, tmp_path: Path, manifest: str | None) -> None:
    (tmp_path / "tuned").mkdir()
    if manifest is not None:
        (tmp_path / "tuned" / "manifest.json").write_text(manifest)
    with pytest.raises(TrainingError, match="exists already"):
        published_by(spec)


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELLED])
def test_a_job_that_has_ended_publishes_and_leaves_nothing(
    spec: TrainingSpec, staged: Path, job_dir: Path, tmp_path: Path, status: JobStatus
) -> None:
    record = JobRecord.of_spec(spec, created_at=1.0, accepted=9, ignored=0)
    (job_dir / "job.json").write_text(replace(record, status=status).to_json())
    if status.is_terminal:
        with pytest.raises(TrainingError, match=f"the job is {status} already"):
            publish(staged, spec, {}, {}, job_dir=job_dir)
    else:
        publish(staged, spec, {}, {}, job_dir=job_dir)
    assert (tmp_path / "tuned").exists() is not status.is_terminal
    assert not staged.exists()


def test_a_finished_job_keeps_only_its_reports(spec: TrainingSpec, staged: Path, job_dir: Path) -> None:
    for name in ("checkpoints", "ray", "logs"):
        (job_dir / name).mkdir()
    (job_dir / "training.jsonl").touch()
    cleanup(spec, job_dir)
    assert sorted(path.name for path in job_dir.iterdir()) == ["logs", "training.jsonl"]
    assert not staged.exists()
