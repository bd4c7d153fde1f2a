"""From an order to a job: which models may be tuned, and what is decided where the client said nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serve_app.api.jobs_protocol import ParsedFineTune
from serve_app.domain.errors import CapabilityError, InvalidInputError, ModelNotFoundError, UnavailableError
from serve_app.inference import training_spec_resolver as module
from serve_app.inference.training_spec_resolver import BaseModels, check_feasible, resolve_spec, training_data
from serve_app.jobs.training_pairs import Example
from serve_app.jobs.training_spec import ClientMetadata, LoraSettings, TrainingKind, TrainingSpec, default_learning_rate
from serve_app.models.model_source import describe
from serve_app.settings.model_settings import ModelSettings
from serve_app.settings.training_settings import TrainingSettings

EXAMPLES = [Example("q1", ("p1",)), Example("ü", ("p2", "p3"), ("n",))]


@pytest.fixture
def models_dir(tmp_path: Path, e5_tiny: Path) -> Path:
    """The base ``first``, a whole fine-tune of it and an adapter on it."""
    for name in ("first", "whole"):
        (tmp_path / name).mkdir()
        for path in e5_tiny.iterdir():
            (tmp_path / name / path.name).symlink_to(path)
    manifest = {"job_id": "j", "base": "first", "family": "e5", "kind": "full", "adapter": False}
    (tmp_path / "whole" / "manifest.json").unlink()
    (tmp_path / "whole" / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "manifest.json").write_text(json.dumps(manifest | {"kind": "lora", "adapter": True}))
    return tmp_path


@pytest.fixture
def bases(models_dir: Path) -> BaseModels:
    models = [ModelSettings(name="first", family="e5"), ModelSettings(name="broken")]
    return BaseModels(models, models_dir, rerankers=["first", "bge-reranker"])  # a BGE-M3 may be both


@pytest.mark.parametrize(("name", "found"), [(None, "first"), ("first", "first"), ("whole", "whole")])
def test_configured_models_and_whole_fine_tunes_may_be_tuned(
    bases: BaseModels, models_dir: Path, name: str | None, found: str
) -> None:
    source = bases.find(name)
    assert (source.name, source.folder, source.profile.family) == (found, models_dir / found, "e5")


@pytest.mark.parametrize("name", ["nobody", "somebody/e5-large", "../first", "", "\ud83d", "a\x00"])
def test_a_name_that_the_operator_did_not_configure_downloads_nothing(bases: BaseModels, name: str) -> None:
    if name == "":
        assert bases.find(name).name == "first"
        return
    with pytest.raises(ModelNotFoundError, match="base_model: no model"):
        bases.find(name)


def test_a_base_may_be_named_by_an_alias_or_with_a_provider(models_dir: Path) -> None:
    bases = BaseModels([ModelSettings(name="first", family="e5")], models_dir, aliases={"old-name": "first"})
    for name in ("old-name", "openai/first", "openai/old-name"):
        assert bases.find(name).name == "first"
    assert bases.find("openai/whole").name == "whole"


def test_a_long_name_is_unknown_and_cut_in_the_message(bases: BaseModels) -> None:
    for name in ("openai/" * 3 + "first", "openai/" * 20_000 + "first"):
        with pytest.raises(ModelNotFoundError) as caught:
            bases.find(name)
        assert len(caught.value.message) < 300


def test_a_reranker_is_told_what_it_is(bases: BaseModels) -> None:
    with pytest.raises(InvalidInputError, match=r"'bge-reranker' is a reranker: .* these models can: first, broken"):
        bases.find("bge-reranker")


def test_an_adapter_is_not_tuned_but_its_base_is_named(bases: BaseModels) -> None:
    with pytest.raises(InvalidInputError, match="'adapter' is an adapter; tune its base 'first' instead"):
        bases.find("adapter")


def test_a_base_with_parts_missing_is_unavailable_and_only_the_log_names_folders(
    bases: BaseModels, models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (models_dir / "broken").mkdir()
    with pytest.raises(UnavailableError) as caught:
        bases.find("broken")
    assert caught.value.message == "base_model: 'broken' cannot be read; the log says why"
    assert f"{models_dir}/broken/config.json is missing" in caplog.text


@pytest.mark.parametrize(
    ("kind", "dimension", "installed", "refused"),
    [
        (TrainingKind.QLORA, 384, True, None),
        (TrainingKind.QLORA, 32, True, "are 32 wide, and only multiples of 64"),
        (TrainingKind.QLORA, 384, False, "bitsandbytes is not installed"),
        (TrainingKind.LORA, 32, False, None),
        (TrainingKind.FULL, 32, False, None),
    ],
)
def test_only_a_qlora_that_can_run_is_accepted(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, kind: TrainingKind, dimension: int, installed: bool,
    refused: str | None,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "find_spec", lambda name: object() if installed else None)
    order = ParsedFineTune("my-e5", kind, EXAMPLES)
    base = replace(describe("first", models_dir / "first", family="e5"), dimension=dimension)
    if refused is None:
        check_feasible(order, base)
        return
    with pytest.raises(CapabilityError, match=f"use_qlora: .*{refused}.*use_qlora: false"):
        check_feasible(order, base)


@pytest.mark.parametrize("missing", ["colbert_linear.pt", "sparse_linear.pt"])
def test_a_bge_m3_without_one_of_its_heads_is_refused(tmp_path: Path, bge_m3_tiny: Path, missing: str) -> None:
    shutil.copytree(bge_m3_tiny, tmp_path / "m3")
    base = describe("m3", tmp_path / "m3", family="bge-m3")
    order = ParsedFineTune("my-m3", TrainingKind.FULL, EXAMPLES)
    check_feasible(order, base)
    (tmp_path / "m3" / missing).unlink()
    with pytest.raises(CapabilityError, match=f"base_model: 'm3' cannot be tuned without {missing}"):
        check_feasible(order, base)


def spec(models_dir: Path, *, gpus: float = 0, settings: dict[str, Any] | None = None, **order: Any) -> TrainingSpec:
    wanted = ParsedFineTune("my-e5", **{"kind": TrainingKind.FULL, "examples": EXAMPLES, **order})
    base = describe("first", models_dir / "first", family="e5")
    return resolve_spec(wanted, base, TrainingSettings(**settings or {}), models_dir, gpus=gpus)


@pytest.mark.parametrize("kind", TrainingKind)
def test_what_the_client_leaves_open_is_decided_by_the_settings(models_dir: Path, kind: TrainingKind) -> None:
    made = spec(models_dir, kind=kind, settings={"seed": 5, "max_seq_length": 64, "num_workers": 2})
    assert (made.model_name, made.base_model, made.family) == ("my-e5", "first", "e5")
    assert (made.base_folder, made.models_dir) == (str(models_dir / "first"), str(models_dir))
    assert (made.kind, made.learning_rate) == (kind, default_learning_rate(kind))
    assert (made.seed, made.max_seq_length, made.num_workers) == (5, 64, 2)


def test_what_the_client_says_holds(models_dir: Path) -> None:
    lora = LoraSettings(8, 8, 0.0)
    made = spec(
        models_dir, kind=TrainingKind.LORA, lora=lora, epochs=3, batch_size=8, learning_rate=1e-5, max_seq_length=100,
        eval_fraction=0.0, seed=0, origin=ClientMetadata("file-1"),
    )  # fmt: skip
    assert (made.lora, made.epochs, made.batch_size, made.learning_rate) == (lora, 3, 8, 1e-5)
    assert (made.max_seq_length, made.eval_fraction, made.seed) == (100, 0.0, 0)
    assert made.origin == ClientMetadata("file-1")


def test_no_text_is_longer_than_the_base_can_read(models_dir: Path) -> None:
    assert spec(models_dir, max_seq_length=8000).max_seq_length == 512


def test_every_job_has_an_id_of_its_own(models_dir: Path) -> None:
    assert spec(models_dir).job_id != spec(models_dir).job_id


@pytest.mark.parametrize(
    ("settings", "gpus", "per_worker"),
    [
        ({}, 0, 0),
        ({}, 0.1, 0.1),
        ({}, 8, 0.25),
        ({"gpu_share": 1}, 8, 1),
        ({"num_workers": 2}, 8, 1),
        ({"num_workers": 2}, 0, 0),
        ({"gpus_per_worker": 1}, 0, 1),
        ({"gpus_per_worker": 0}, 8, 0),
        ({"device": "cpu"}, 8, 0),
    ],
)
def test_a_worker_gets_a_share_of_a_gpu_if_there_is_one_and_nobody_says_otherwise(
    models_dir: Path, settings: dict[str, Any], gpus: float, per_worker: float
) -> None:
    assert spec(models_dir, settings=settings, gpus=gpus).gpus_per_worker == per_worker


def test_data_is_a_line_of_json_for_each_example() -> None:
    data = training_data(ParsedFineTune("m", TrainingKind.FULL, EXAMPLES, held_out=EXAMPLES[:1]))
    assert [json.loads(line) for line in data.pairs.decode().splitlines()] == [
        {"query": "q1", "pos": ["p1"], "neg": []},
        {"query": "ü", "pos": ["p2", "p3"], "neg": ["n"]},
    ]
    assert data.evaluation == data.pairs.splitlines(keepends=True)[0]
    assert training_data(ParsedFineTune("m", TrainingKind.FULL, EXAMPLES)).evaluation is None
