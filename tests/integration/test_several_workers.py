"""Two workers with gloo, each with half of every batch: they learn what one learns, and go on where they were killed.

The order of the pairs, the batches and the negatives are those of one worker, so the weights differ by rounding alone.
Dropout is off: its draws can not be the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from serve_app.jobs.training_spec import LoraSettings, TrainingKind
from tests.tiny_models import build_bge_m3_tiny, build_e5_tiny
from tests.training_lines import read_lines
from tests.training_worker import DIES_AFTER, take_part, workers
from tests.unit.training.training_jobs import docstring_pairs, make_job, of_type

CLOSEST = (
    0.01  # difference of what was learned, as a share of it; without the other worker's negatives it is 0.06 and more
)
NO_GRADIENT = "key.bias"  # shifts all scores of a query alike, so its gradient is rounding, which Adam makes steps of
BASES = {"full": "e5-tiny", "lora": "bge-m3-tiny"}
HEADS = ("colbert_linear.pt", "sparse_linear.pt")
STEPS = 8


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny models without dropout."""
    root = tmp_path_factory.mktemp("bases")
    build_e5_tiny(root / "e5-tiny")
    build_bge_m3_tiny(root / "bge-m3-tiny")
    for file in root.glob("*/config.json"):
        config = json.loads(file.read_text())
        file.write_text(json.dumps(config | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}))
    return root


@pytest.fixture(scope="module")
def jobs(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Path]]:
    """Folders of jobs that were trained by one worker, by two, and by two who were killed, for each kind."""
    root = tmp_path_factory.mktemp("jobs")
    jobs = {(who, kind): make(root / who / kind, bases, kind) for who in ("one", "two", "killed") for kind in BASES}
    for kind in BASES:
        (jobs["killed", kind] / DIES_AFTER).write_text("2")
    together = [folder for (who, _), folder in jobs.items() if who != "one"]
    with pytest.MonkeyPatch.context() as patch, workers(together, root):
        patch.setattr("training.trainer.trainable_model.choose_dtype", lambda *_: torch.float32)
        for kind in BASES:
            take_part(jobs["one", kind])
    return jobs


def make(root: Path, bases: Path, kind: str) -> Path:
    settings: dict[str, Any] = {"examples": docstring_pairs(40), "batch_size": 8, "mini_batch_size": 2, "epochs": 2}
    if kind == "lora":
        settings |= {"family": "bge-m3", "lora": LoraSettings(r=4, alpha=8, dropout=0.0)}
    _, job_dir = make_job(
        root, bases / BASES[kind], kind=TrainingKind(kind), num_workers=2, checkpoint_steps=99, **settings
    )
    return job_dir


def result(job_dir: Path) -> Path:
    return job_dir.parent / "models" / "tuned"


def learned(job_dir: Path, base: Path) -> np.ndarray[Any, Any]:
    """Every change of a weight, float32, one after the other: of the model, or of adapter and heads."""
    if (result(job_dir) / "model.safetensors").is_file():
        old, new = load_file(base / "model.safetensors"), load_file(result(job_dir) / "model.safetensors")
        return np.concatenate([(new[name] - old[name]).ravel() for name in sorted(new) if NO_GRADIENT not in name])
    adapter = load_file(result(job_dir) / "adapter_model.safetensors")
    changes = [adapter[name] for name in sorted(adapter) if "lora_B" in name]  # these begin as zeros
    for head in HEADS:
        old, new = (torch.load(folder / head, weights_only=True) for folder in (base, result(job_dir)))
        changes += [(new[name] - old[name]).numpy() for name in sorted(new)]
    return np.concatenate([change.ravel() for change in changes])


@pytest.mark.parametrize("kind", BASES)
def test_two_workers_learn_what_one_learns_from_the_same_batches(
    jobs: dict[tuple[str, str], Path], bases: Path, kind: str
) -> None:
    alone, together = (learned(jobs[who, kind], bases / BASES[kind]) for who in ("one", "two"))
    difference = np.linalg.norm(alone - together) / np.linalg.norm(alone)
    print(f"{kind}: what was learned differs by {difference:.4f} of it")
    assert difference < CLOSEST
    losses = [of_type(read_lines(jobs[who, kind]), "progress")[0]["loss"] for who in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("kind", BASES)
def test_the_result_of_two_workers_is_published_once_and_measured(jobs: dict[tuple[str, str], Path], kind: str) -> None:
    lines = read_lines(jobs["two", kind])
    (started,) = of_type(lines, "started")
    assert (started["world_size"], started["total_steps"], started["train_pairs"]) == (2, STEPS, 32)
    assert [line["type"] for line in lines if line["type"] in ("failed", "published")] == ["published"]
    metrics = [json.loads((result(jobs[who, kind]) / "manifest.json").read_text())["metrics"] for who in ("one", "two")]
    assert metrics[1]["before"] == metrics[0]["before"]
    assert metrics[1]["after"] == pytest.approx(metrics[0]["after"], abs=0.1)  # one query of eight may fall a rank
    assert metrics[1]["after"]["queries"] == 8


@pytest.mark.parametrize("kind", BASES)
def test_two_workers_that_were_killed_go_on_from_the_first_ones_checkpoint_as_if_nothing_had_been(
    jobs: dict[tuple[str, str], Path], bases: Path, kind: str
) -> None:
    """The checkpoint is one by time, of which the other worker's clock knows nothing."""
    lines = read_lines(jobs["killed", kind])
    assert [line["resumed_step"] for line in of_type(lines, "started")] == [0, 2]
    assert [line["step"] for line in of_type(lines, "checkpoint")] == [2, 4, STEPS]
    undisturbed, resumed = (learned(jobs[who, kind], bases / BASES[kind]) for who in ("two", "killed"))
    assert np.array_equal(undisturbed, resumed)
