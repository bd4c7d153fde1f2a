"""Vocabularies are shared, and token ids read as FlagEmbedding reads them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from serve_app.models.tokenizer import TextTokenizer
from serve_app.models.vocabulary import load_vocabulary


def test_models_with_the_same_tokenizer_share_one(e5_tiny: Path, tmp_path: Path) -> None:
    other = shutil.copytree(e5_tiny, tmp_path / "other")
    assert load_vocabulary(e5_tiny) is load_vocabulary(other)


def test_models_with_another_class_of_tokenizer_share_none(e5_tiny: Path, tmp_path: Path) -> None:
    other = shutil.copytree(e5_tiny, tmp_path / "other")
    (other / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    kept = load_vocabulary(e5_tiny)
    assert load_vocabulary(other) is not kept


def test_two_ids_that_read_the_same_keep_the_larger_weight_and_special_tokens_are_left_out(bge_m3_tiny: Path) -> None:
    vocabulary = load_vocabulary(bge_m3_tiny)
    start, inside = (vocabulary.tokenizer.token_to_id(piece) for piece in ("▁is", "is"))
    assert start != inside
    assert vocabulary.weights_by_text([0, start, inside, 2], [9.0, 0.25, 0.75, 9.0]) == {"is": 0.75}
    assert vocabulary.weights_by_text([inside, start], [0.25, 0.75]) == {"is": 0.75}


@pytest.mark.parametrize("text", ["read the file", "  two  words "])
def test_pieces_put_together_are_the_text(bge_m3_tiny: Path, text: str) -> None:
    tokenizer = TextTokenizer(bge_m3_tiny, 512)
    ids = tokenizer([text]).ids[1:-1].tolist()
    assert "".join(tokenizer.vocabulary.pieces(ids)).split() == text.split()
