"""Whole jobs on tiny models: published, resumed, reproduced, and failed with a reason."""

from __future__ import annotations

import gc
import json
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from torch import Tensor, nn

from serve_app.domain.errors import ModelLoadError
from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.training_pairs import Example
from serve_app.jobs.training_spec import TrainingKind, TrainingSpec, default_learning_rate
from serve_app.models.model_source import describe
from serve_app.models.tokenizer import TextTokenizer
from tests.training_lines import read_lines
from tests.unit.training.training_jobs import docstring_pairs, make_job, of_type
from training.job import load_job
from training.job_run import train
from training.reporting import Reporter
from training.trainer.checkpoints import remember_mini_batch_size
from training.trainer.contrastive_trainer import ContrastiveTrainer
from training.trainer.timed_checkpoints import TimedCheckpointCallback
from training.trainer.trainable_model import build_model, choose_compute
from training.training_errors import TrainingError

KINDS = [TrainingKind.FULL, TrainingKind.LORA]


class Killed(Exception):
    """Stands for a worker's sudden death."""


def run(spec: TrainingSpec, job_dir: Path, *, dies_after: int = 0) -> Path:
    def on_checkpoint(step: int, loss: float) -> None:
        if step == dies_after:
            raise Killed

    folder = train(spec, job_dir, Reporter(JobFolder(job_dir).updates_file), on_checkpoint=on_checkpoint)
    assert folder is not None
    return folder


def same_weights(one: Path, other: Path) -> bool:
    (file,) = {path.name for path in one.glob("*.safetensors")}
    first, second = load_file(one / file), load_file(other / file)
    assert first.keys() == second.keys()
    return all((first[name] == second[name]).all() for name in first)


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> None:
    """Every training collects garbage twice; what the libraries made at import need not be searched each time."""
    gc.freeze()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, e5_tiny: Path) -> dict[TrainingKind, tuple[Path, Path]]:
    """Job folder and result of an undisturbed job of each kind."""
    jobs = {}
    for kind in KINDS:
        spec, job_dir = make_job(tmp_path_factory.mktemp(kind), e5_tiny, kind=kind)
        jobs[kind] = job_dir, run(spec, job_dir)
    return jobs


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_reports_its_steps(finished: dict[TrainingKind, tuple[Path, Path]], kind: TrainingKind) -> None:
    job_dir, folder = finished[kind]
    lines = read_lines(job_dir)
    assert [line["when"] for line in of_type(lines, "metrics")] == ["before", "after"]
    (started,) = of_type(lines, "started")
    assert (started["total_steps"], started["train_pairs"], started["eval_pairs"]) == (4, 16, 4)
    assert (started["device"], started["world_size"], started["resumed_step"]) == ("cpu", 1, 0)
    assert json.loads((folder / "manifest.json").read_text())["warnings"] == []
    groups, *measured = [line["message"] for line in of_type(lines, "event")]
    assert groups.startswith("4 of 20 queries are held out: 4 of 20 groups")
    assert measured == ["measuring the base", "measuring the result"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["data"] == {"train_pairs": 16, "eval_pairs": 4, "train_groups": 16, "eval_groups": 4}
    assert manifest["metrics"]["after"]["groups"] == 4
    assert [line["step"] for line in of_type(lines, "checkpoint")] == [2, 4]
    progress = of_type(lines, "progress")
    assert progress[0]["step"] == 1
    assert (progress[-1]["step"], progress[-1]["epoch"], progress[-1]["seconds_left"]) == (4, 1.0, 0.0)
    assert all(0 < line["loss"] < 20 and line["tokens_per_second"] > 0 for line in progress)
    assert lines[-1]["type"] == "published"
    assert lines[-1]["folder"] == str(folder)
    assert (job_dir / "loss.svg").is_file()


def test_every_mini_batch_of_measuring_and_training_is_a_heartbeat(tmp_path: Path, e5_tiny: Path) -> None:
    heartbeats: Counter[str] = Counter()

    class Counting(Reporter):
        phase = "prepare"

        def heartbeat(self) -> None:
            heartbeats[self.phase] += 1

        def event(self, level: str, message: str) -> None:
            self.phase = message

        def started(self, **_: Any) -> None:
            self.phase = "steps"

    spec, job_dir = make_job(tmp_path, e5_tiny, mini_batch_size=2, checkpoint_steps=9)
    train(spec, job_dir, Counting(JobFolder(job_dir).updates_file))
    measured = 20 // 8 + 1 + 1  # passages and queries, eight at a time
    assert heartbeats["measuring the base"] == measured
    assert heartbeats["measuring the result"] == measured + 16 // 8  # training passages, to see that they differ
    assert heartbeats["steps"] >= 4 * 2 * (2 + 2)  # queries and passages of each step, twice


def test_a_full_result_is_the_base_with_other_weights(
    finished: dict[TrainingKind, tuple[Path, Path]], e5_tiny: Path
) -> None:
    _, folder = finished[TrainingKind.FULL]
    base, result = describe("e5-tiny", e5_tiny), describe("tuned", folder)
    same = ("profile", "pooling", "dimension", "max_tokens")
    assert [getattr(result, name) for name in same] == [getattr(base, name) for name in same]
    assert (folder / "tokenizer.json").read_bytes() == (e5_tiny / "tokenizer.json").read_bytes()
    old, new = load_file(e5_tiny / "model.safetensors"), load_file(folder / "model.safetensors")
    changed = {name for name, value in new.items() if not (value == old[name]).all()}
    assert "embeddings.word_embeddings.weight" not in changed  # they are frozen
    assert changed == new.keys() - {"embeddings.word_embeddings.weight"}


def test_an_adapter_has_no_weights_of_its_base(finished: dict[TrainingKind, tuple[Path, Path]]) -> None:
    _, folder = finished[TrainingKind.LORA]
    assert sorted(p.name for p in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 8, "e5-tiny")
    assert all("lora_" in name for name in load_file(folder / "adapter_model.safetensors"))


def test_a_bge_m3_result_has_its_trained_heads(tmp_path: Path, bge_m3_tiny: Path) -> None:
    spec, job_dir = make_job(tmp_path, bge_m3_tiny, kind=TrainingKind.LORA, family="bge-m3", checkpoint_steps=9)
    folder = run(spec, job_dir)
    for name in ("colbert_linear.pt", "sparse_linear.pt"):
        before, after = (torch.load(f / name, weights_only=True)["weight"] for f in (bge_m3_tiny, folder))
        assert before.shape == after.shape
        assert not torch.equal(before, after)
    measures = {f"{head}{name}" for head in ("", "sparse_", "colbert_") for name in ("ndcg@10", "recall@1", "mrr@10")}
    metrics = json.loads((folder / "manifest.json").read_text())["metrics"]
    assert measures < metrics["before"].keys() == metrics["after"].keys()
    assert metrics["after"] == {name: line[name] for line in of_type(read_lines(job_dir), "metrics")[1:]
                                for name in metrics["after"]}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_pretrained_heads_have_the_rate_of_a_full_fine_tune_and_are_clipped_with_the_model(
    tmp_path: Path, bge_m3_tiny: Path, monkeypatch: pytest.MonkeyPatch, kind: TrainingKind
) -> None:
    rates: list[dict[str, float]] = []
    norms: list[float] = []

    def on_step(trainer: ContrastiveTrainer, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" not in logs or rates:
            return
        loss, optimizer = trainer._objective, trainer.optimizer
        names = {parameter: name.partition(".")[0] for name, parameter in loss.named_parameters()}
        rates.append({names[p]: group["initial_lr"] for group in optimizer.param_groups for p in group["params"]})

    clip = ContrastiveTrainer._clip_grad_norm

    def on_clip(trainer: ContrastiveTrainer, model: nn.Module) -> Tensor:
        norm: Tensor = clip(trainer, model)
        gradients = [p.grad for p in trainer._objective.parameters() if p.grad is not None]
        assert trainer._objective.heads.colbert_linear.weight.grad is not None
        norms.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))
        return norm

    monkeypatch.setattr(ContrastiveTrainer, "log", on_step)
    monkeypatch.setattr(ContrastiveTrainer, "_clip_grad_norm", on_clip)
    rate = default_learning_rate(kind)
    spec, job_dir = make_job(
        tmp_path, bge_m3_tiny, kind=kind, family="bge-m3", eval_fraction=0.0, learning_rate=3 * rate,
        max_grad_norm=1e-3, checkpoint_steps=9,
    )  # fmt: skip
    with suppress(TrainingError):  # so clipped, it changes next to nothing
        run(spec, job_dir)
    assert rates == [{"model": 3 * rate, "heads": pytest.approx(3 * default_learning_rate(TrainingKind.FULL))}]
    assert norms == [pytest.approx(1e-3, rel=1e-3)] * 5


def test_a_mini_batch_that_another_worker_halved_is_reported(tmp_path: Path, e5_tiny: Path) -> None:
    spec, job_dir = make_job(tmp_path, e5_tiny, eval_fraction=0.0, checkpoint_steps=9)
    remember_mini_batch_size(job_dir / "checkpoints", 2)
    run(spec, job_dir)
    messages = [line["message"] for line in of_type(read_lines(job_dir), "event")]
    assert "continuing with 2 texts at a time: memory ran out with more" in messages


def test_a_killed_job_resumes_with_the_same_result(
    finished: dict[TrainingKind, tuple[Path, Path]], tmp_path: Path, e5_tiny: Path
) -> None:
    spec, job_dir = make_job(tmp_path, e5_tiny, kind=TrainingKind.LORA)
    with pytest.raises(Killed):
        run(spec, job_dir, dies_after=2)
    half_written = job_dir / "checkpoints" / "checkpoint-3"
    shutil.copytree(job_dir / "checkpoints" / "checkpoint-2", half_written)
    (half_written / "complete").unlink()
    folder = run(spec, job_dir)
    lines = read_lines(job_dir)
    assert [line["resumed_step"] for line in of_type(lines, "started")] == [0, 2]
    assert sum("are held out" in line["message"] for line in of_type(lines, "event")) == 1  # as are the groups
    assert [line["when"] for line in of_type(lines, "metrics")] == ["before", "after"]  # the base is measured once
    assert not half_written.exists()
    assert same_weights(folder, finished[TrainingKind.LORA][1])


def test_a_slow_job_has_checkpoints_before_it_has_taken_many_steps(
    tmp_path: Path, e5_tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = count(0, 50)  # at the start, behind each step and behind each checkpoint
    monkeypatch.setattr(
        "training.trainer.contrastive_trainer.TimedCheckpointCallback",
        partial(TimedCheckpointCallback, clock=lambda: next(ticks)),
    )
    spec, job_dir = make_job(
        tmp_path, e5_tiny, kind=TrainingKind.LORA, examples=docstring_pairs(16), eval_fraction=0.0, checkpoint_steps=99,
        max_seq_length=8,
    )  # fmt: skip
    with pytest.raises(Killed):
        run(spec, job_dir, dies_after=2)
    (state,) = job_dir.glob("checkpoints/*/trainer_state.json")
    assert json.loads(state.read_text())["log_history"] == [], "a checkpoint does not grow with the steps"
    run(spec, job_dir)
    lines = read_lines(job_dir)
    assert [line["resumed_step"] for line in of_type(lines, "started")] == [0, 2]
    assert [line["step"] for line in of_type(lines, "checkpoint")] == [2, 4]


def test_out_of_memory_halves_the_mini_batch_and_changes_nothing_else(
    tmp_path: Path, e5_tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = docstring_pairs(8)
    whole = CachedMultipleNegativesRankingLoss.forward

    def forward(loss: CachedMultipleNegativesRankingLoss, features: list[dict[str, Tensor]], labels: Tensor) -> Tensor:
        if loss.mini_batch_size > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(loss, features, labels)

    small = {"examples": examples, "eval_fraction": 0.0, "checkpoint_steps": 9}
    spec, job_dir = make_job(tmp_path / "easy", e5_tiny, mini_batch_size=1, **small)
    undisturbed = run(spec, job_dir)
    monkeypatch.setattr(CachedMultipleNegativesRankingLoss, "forward", forward)
    spec, job_dir = make_job(tmp_path / "hard", e5_tiny, mini_batch_size=4, **small)
    assert same_weights(run(spec, job_dir), undisturbed)
    messages = [line["message"] for line in of_type(read_lines(job_dir), "event") if line["level"] == "warning"]
    assert [message.rpartition(" ")[2] for message in messages] == ["2", "1"]


def test_out_of_memory_with_one_text_fails_the_job(
    tmp_path: Path, e5_tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(CachedMultipleNegativesRankingLoss, "forward", forward)
    spec, job_dir = make_job(tmp_path, e5_tiny, eval_fraction=0.0)
    with pytest.raises(torch.OutOfMemoryError):
        run(spec, job_dir)
    assert (job_dir / "checkpoints" / "mini_batch_size").read_text() == "1\n"


def test_a_diverged_training_fails_with_the_setting_to_lower(tmp_path: Path, e5_tiny: Path) -> None:
    spec, job_dir = make_job(tmp_path, e5_tiny, eval_fraction=0.0, learning_rate=1e30, max_grad_norm=0.0)
    with pytest.raises(TrainingError, match=r"training diverged \(the loss is .* at step \d+\); lower `learning_rate`"):
        run(spec, job_dir)
    assert not (tmp_path / "models" / "tuned").exists()


@pytest.mark.parametrize("family", ["e5", "bge-m3"])
def test_a_collapsed_model_is_published_with_a_warning_only_if_it_was_measured(
    tmp_path: Path, e5_tiny: Path, bge_m3_tiny: Path, family: str
) -> None:
    base = {"e5": e5_tiny, "bge-m3": bge_m3_tiny}[family]
    collapsing: dict[str, Any] = {"family": family, "learning_rate": 0.1, "epochs": 5, "checkpoint_steps": 99}
    spec, job_dir = make_job(tmp_path / "measured", base, **collapsing)
    folder = run(spec, job_dir)
    warnings = json.loads((folder / "manifest.json").read_text())["warnings"]
    lasting = [line for line in of_type(read_lines(job_dir), "event") if line.get("lasting")]
    assert [line["message"] for line in lasting] == warnings
    assert {line["level"] for line in lasting} == {"warning"}
    collapse, loss = warnings
    assert "COLLAPSED: for 16 different training passages it computes one dense vector" in collapse
    assert ("one ColBERT vector for all tokens" in collapse) is (family == "bge-m3")
    assert "no better than chance" in loss
    spec, job_dir = make_job(tmp_path / "not measured", base, eval_fraction=0.0, **collapsing)
    with pytest.raises(TrainingError, match=r"COLLAPSED: .* not published, because nothing was held out"):
        run(spec, job_dir)
    assert not (Path(spec.models_dir) / "tuned").exists()


def test_one_step_is_enough_to_learn_something(tmp_path: Path, e5_tiny: Path) -> None:
    spec, job_dir = make_job(
        tmp_path, e5_tiny, examples=docstring_pairs(3), eval_fraction=0.0, batch_size=32, max_seq_length=8
    )
    run(spec, job_dir)
    lines = read_lines(job_dir)
    assert [line["step"] for line in of_type(lines, "progress")] == [1]
    events = [line["message"] for line in of_type(lines, "event")]
    assert any("3 pairs instead of 32" in message for message in events)


@pytest.mark.parametrize(
    ("examples", "settings", "reason"),
    [
        (docstring_pairs(4), {"batch_size": 1}, "a batch of one pair has no negatives"),
        ([Example(str(i), ("always the same",)) for i in range(4)], {}, "share their texts"),
        (docstring_pairs(4), {"kind": TrainingKind.QLORA}, "use_qlora: false"),
    ],
)
def test_a_job_that_cannot_be_trained_fails_with_a_reason(
    tmp_path: Path, e5_tiny: Path, examples: list[Example], settings: dict[str, object], reason: str
) -> None:
    spec, job_dir = make_job(tmp_path, e5_tiny, examples=examples, eval_fraction=0.0)
    with pytest.raises(TrainingError, match=reason):
        run(replace(spec, **settings), job_dir)  # type: ignore[arg-type]


def test_a_base_that_another_machine_has_found_is_looked_for_here(tmp_path: Path, e5_tiny: Path) -> None:
    spec, job_dir = make_job(tmp_path, e5_tiny, base_folder="/where/another/machine/keeps/downloads")
    with pytest.raises(ModelLoadError):
        load_job(replace(spec, base_model="nowhere/e5-nobody-has"), job_dir)
    (Path(spec.models_dir) / spec.base_model).symlink_to(e5_tiny)
    assert load_job(spec, job_dir).source.folder == Path(spec.models_dir) / spec.base_model


def test_training_reads_the_same_tokens_as_serving(e5_tiny: Path) -> None:
    source = describe("e5-tiny", e5_tiny)
    spec = TrainingSpec(job_id="j", model_name="m", base_model="b", base_folder="f", models_dir="d", family="e5")
    model = build_model(source, choose_compute(spec), max_tokens=9)
    texts = ["short", "Übermütige Füchse springen über große Gräben, und das   jeden Tag. ", "敏捷的棕色狐狸跳过了懒狗"]
    served = TextTokenizer(e5_tiny, 9)(texts).batch().rows()
    for text, ids in zip(texts, served, strict=True):
        assert model.preprocess([text])["input_ids"].tolist() == [ids.tolist()]
