"""One job's folder: the only place that names what is inside.

A job folder holds::

    spec.json        TrainingSpec, written by the service, never changed
    pairs.jsonl      one training example a line: {"query": str, "pos": [str], "neg": [str]}
    eval.jsonl       held-out examples of the same form, if the client sent some
    job.json         JobRecord; one writer, the tracker
    events.jsonl     JobEvents, for people; the tracker appends
    training.jsonl   JobUpdates of the training; the training appends, the tracker reads
    split.sha256     how the first attempt split the examples, see ``training.data.split_record``
    loss.svg         the loss curve; the training draws it
    gave_up.txt      why a worker of several failed for good
    checkpoints/     of the training; removed a day after the job has ended
    ray/             Ray Train's own files; removed likewise
    logs/            of the training

Beside the job folders the jobs folder holds::

    .lease/          which tracker may write here, see ``jobs.lease_file``
    .ended.jsonl     an index of ended jobs, see ``jobs.ended_index``; it may be deleted while no service runs
    .files/          uploaded files, see ``jobs.upload_store``
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from serve_app.jobs.job_record import JobRecord
from serve_app.jobs.training_spec import TrainingSpec


@dataclass(frozen=True)
class JobFolder:
    """The paths in a job's folder, whether they exist or not, and readers of the two files that several programs read.

    Attributes:
        path: The folder; its name is the job's id.
    """

    path: Path

    @property
    def spec_file(self) -> Path:
        """``spec.json``."""
        return self.path / "spec.json"

    @property
    def record_file(self) -> Path:
        """``job.json``."""
        return self.path / "job.json"

    @property
    def pairs_file(self) -> Path:
        """The training examples."""
        return self.path / "pairs.jsonl"

    @property
    def held_out_file(self) -> Path:
        """The client's own held-out examples; missing if the client sent none."""
        return self.path / "eval.jsonl"

    @property
    def events_file(self) -> Path:
        """The job's events, for people."""
        return self.path / "events.jsonl"

    @property
    def updates_file(self) -> Path:
        """The training's updates."""
        return self.path / "training.jsonl"

    @property
    def split_file(self) -> Path:
        """Digest of the first attempt's split."""
        return self.path / "split.sha256"

    @property
    def loss_curve_file(self) -> Path:
        """The loss curve as SVG."""
        return self.path / "loss.svg"

    @property
    def worker_failure_file(self) -> Path:
        """The reason why one of several workers failed for good."""
        return self.path / "gave_up.txt"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def ray_train(self) -> Path:
        """Folder of Ray Train's own files."""
        return self.path / "ray"

    @property
    def logs(self) -> Path:
        """Folder of the logs."""
        return self.path / "logs"

    def log_file(self, name: str) -> Path:
        """One process's log."""
        return self.logs / f"{name}.log"

    def cleanup_dirs(self, spec: TrainingSpec) -> tuple[Path, ...]:
        """Folders that an ended job no longer needs: checkpoints are several times as large as its result."""
        return self.checkpoints, self.ray_train, spec.staging_dir

    def read_spec(self) -> TrainingSpec:
        """Reads ``spec.json``.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is not JSON, or not a spec.
            TypeError: A field of the spec is missing.
        """
        return TrainingSpec.from_json(self.spec_file.read_text(encoding="utf-8"))

    def read_record(self) -> JobRecord:
        """Reads ``job.json``.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is not JSON, or not a record.
        """
        return JobRecord.from_json(self.record_file.read_text(encoding="utf-8"))
