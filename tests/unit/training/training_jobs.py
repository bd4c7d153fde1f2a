"""Job folders for tests: a tiny base, pairs out of docstrings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.training_pairs import Example
from serve_app.jobs.training_spec import LoraSettings, TrainingKind, TrainingSpec, default_learning_rate
from tests.tiny_models import stdlib_docstrings

Line = dict[str, Any]


def docstring_pairs(count: int) -> list[Example]:
    return list(_docstring_pairs()[:count])


@cache
def _docstring_pairs() -> tuple[Example, ...]:
    """The first words of different docstrings, each with its next words."""
    found: dict[str, str] = {}
    for text in stdlib_docstrings():
        words = text.split()
        if len(words) > 8:
            found.setdefault(" ".join(words[:4]), " ".join(words[4:24]))
    passages = dict(zip(found.values(), found, strict=True))  # each passage once, too
    return tuple(Example(query, (passage,)) for passage, query in passages.items())


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    path.write_text("".join(example.to_json() + "\n" for example in examples), encoding="utf-8")


def make_job(root: Path, base: Path, *, kind: TrainingKind = TrainingKind.FULL, family: str = "e5",
             examples: Sequence[Example] | None = None, **settings: Any) -> tuple[TrainingSpec, Path]:  # fmt: skip
    """A job of four steps, and its folder."""
    job_dir, models_dir = root / "job", root / "models"
    job_dir.mkdir(parents=True)
    models_dir.mkdir()
    spec = TrainingSpec(
        job_id="0b1d5a0e",
        model_name="tuned",
        base_model=base.name,
        base_folder=str(base),
        models_dir=str(models_dir),
        family=family,
        kind=kind,
        lora=None if kind is TrainingKind.FULL else LoraSettings(r=4, alpha=8),
        batch_size=4,
        mini_batch_size=4,
        learning_rate=10 * default_learning_rate(kind),
        max_seq_length=16,
        checkpoint_steps=2,
        eval_fraction=0.2,
    )
    spec = replace(spec, **settings)
    (JobFolder(job_dir).spec_file).write_text(spec.to_json(), encoding="utf-8")
    write_examples(JobFolder(job_dir).pairs_file, docstring_pairs(20) if examples is None else examples)
    return spec, job_dir


def of_type(lines: Iterable[Line], type_: str) -> list[Line]:
    return [line for line in lines if line["type"] == type_]
