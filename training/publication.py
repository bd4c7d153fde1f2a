"""Publication of a result by an atomic rename into the models folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from serve_app.domain.errors import ModelLoadError
from serve_app.domain.files import flush_folder, remove
from serve_app.domain.manifest import Manifest
from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.job_record import JobStatus
from serve_app.jobs.training_spec import TrainingKind, TrainingSpec
from training.training_errors import TrainingError


def publish(
    staged: Path,
    spec: TrainingSpec,
    metrics: Mapping[str, Mapping[str, float]],
    data: Mapping[str, int],
    *,
    job_dir: Path,
    warnings: Sequence[str] = (),
) -> Path:
    """Writes a staged result's manifest and renames its folder, so that it appears complete or not at all.

    Args:
        staged: The content of ``spec.staging_dir``.
        spec: The job.
        metrics: Retrieval quality, by ``before`` and ``after``.
        data: Numbers of pairs and groups, by their use.
        job_dir: The job's folder, whose record may have ended without this training.
        warnings: Sentences for users of the result.

    If an earlier worker of the job published and died before it could report that, its result stays.

    Raises:
        TrainingError: The name was taken meanwhile, or the job has ended.
    """
    manifest(spec, metrics, data, warnings).write(staged)
    for path in staged.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors makes its files 0600
    flush_folder(staged)
    _check_not_ended(staged, job_dir)
    target = spec.result_dir
    try:
        if target.exists():  # an empty folder would be replaced silently
            raise FileExistsError(target)
        staged.rename(target)
    except OSError as error:
        if not target.exists():
            raise
        if _job_of(target) != spec.job_id:
            raise TrainingError(
                f"a model named {spec.model_name!r} appeared while this one was trained; submit with another model_name"
            ) from error
        shutil.rmtree(staged, ignore_errors=True)
    return target


def _check_not_ended(staged: Path, job_dir: Path) -> None:
    """A training that could not be stopped may finish after its job was cancelled and its name given to another."""
    try:
        record = JobFolder(job_dir).read_record()
    except (OSError, ValueError):
        return  # a training by hand, without a tracker
    if record.status in (JobStatus.CANCELLED, JobStatus.FAILED):
        shutil.rmtree(staged, ignore_errors=True)
        raise TrainingError(f"the job is {record.status} already; its result is not published")


def published_by(spec: TrainingSpec) -> Path | None:
    """The result of this job, if an earlier attempt has published it.

    Raises:
        TrainingError: The name belongs to something else.
    """
    target = spec.result_dir
    if not target.exists():
        return None
    if _job_of(target) != spec.job_id:
        raise TrainingError(f"a model named {spec.model_name!r} exists already; choose another model_name")
    return target


def _job_of(folder: Path) -> str | None:
    """The job that made a model; None for others."""
    try:
        return Manifest.read(folder).job_id
    except ModelLoadError:
        return None


def manifest(
    spec: TrainingSpec,
    metrics: Mapping[str, Mapping[str, float]],
    data: Mapping[str, int],
    warnings: Sequence[str] = (),
) -> Manifest:
    """The description of a result; the client's own metadata and folders of the training machine are left out."""
    described = {"job_id", "model_name", "base_model", "base_folder", "models_dir", "family", "kind", "origin"}
    return Manifest(
        name=spec.model_name,
        family=spec.family,
        base=spec.base_model,
        kind=spec.kind.value,
        adapter=spec.kind is not TrainingKind.FULL,
        job_id=spec.job_id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        metrics={when: dict(values) for when, values in metrics.items()},
        data=dict(data),
        warnings=list(warnings),
        settings={name: value for name, value in asdict(spec).items() if name not in described},
    )


def cleanup(spec: TrainingSpec, job_dir: Path) -> None:
    """Removes checkpoints and staging folders of a finished job."""
    for folder in JobFolder(job_dir).cleanup_dirs(spec):
        remove(folder)
