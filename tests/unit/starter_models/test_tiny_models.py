from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from tests import tiny_models

# No blanks at an end or in a row: there transformers splits otherwise than tokenizer.json says.
TEXTS = (
    "How do I read a file line by line?",
    "Größe, Straße und Ärger",
    "Les élèves étaient à l'école.",
    "Быстрая собака прыгает",
    "敏捷的狐狸 跳过了 犬。",
    "빠른 여우가 뛰어넘는다",
    "الثعلب السريع",
    "तेज़ लोमड़ी",
    "e\u0301t\u00e9 ﬁn ｆｕｌｌ ½",
    "unknown: 🜚 ᚠ ꙮ",
    "query: tab\tand\nnewline",
    "",
)


@pytest.fixture(scope="module")
def sentence_model(e5_tiny: Path):  # type: ignore[no-untyped-def]
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(e5_tiny), device="cpu")


def test_models_are_the_same_every_time(e5_tiny: Path, tmp_path: Path) -> None:
    tiny_models.vocabulary.cache_clear()
    tiny_models.build_e5_tiny(tmp_path / "e5-tiny")
    for path in e5_tiny.rglob("*.*"):
        if path.is_file():
            assert (tmp_path / "e5-tiny" / path.relative_to(e5_tiny)).read_bytes() == path.read_bytes()


def test_few_multilingual_tokens_are_unknown(e5_tiny: Path) -> None:
    tokenizer = Tokenizer.from_file(str(e5_tiny / "tokenizer.json"))
    ids = np.concatenate([encoding.ids for encoding in tokenizer.encode_batch(list(TEXTS))])
    assert np.mean(ids == tiny_models.SPECIAL.unk) < 0.05


def test_tokens_equal_those_of_sentence_transformers(e5_tiny: Path, sentence_model) -> None:  # type: ignore[no-untyped-def]
    tokenizer = Tokenizer.from_file(str(e5_tiny / "tokenizer.json"))
    for text in TEXTS:
        theirs = sentence_model.tokenizer(text)["input_ids"]
        assert tokenizer.encode(text).ids == list(theirs), text


def test_tiny_e5_loads_in_sentence_transformers_with_mean_pooling(sentence_model) -> None:  # type: ignore[no-untyped-def]
    texts = [text for text in TEXTS if text]
    vectors = sentence_model.encode(texts)
    assert vectors.shape == (len(texts), tiny_models.HIDDEN)
    assert sentence_model.max_seq_length == tiny_models.E5_POSITIONS
    states = sentence_model.encode(texts, output_value="token_embeddings")
    means = np.stack([np.asarray(state).mean(0) for state in states])
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_loading_misses_no_weight_and_leaves_none_over(e5_tiny: Path, bge_m3_tiny: Path) -> None:
    from transformers import AutoModel

    for folder, kind in ((e5_tiny, "BertModel"), (bge_m3_tiny, "XLMRobertaModel")):
        model, report = AutoModel.from_pretrained(folder, output_loading_info=True)
        assert type(model).__name__ == kind
        assert not any(report.values()), report


def test_tiny_bge_m3_has_cls_pooling_8192_tokens_and_two_heads(bge_m3_tiny: Path) -> None:
    import torch

    pooling = json.loads((bge_m3_tiny / "1_Pooling" / "config.json").read_text())
    assert pooling["pooling_mode_cls_token"]
    assert not pooling["pooling_mode_mean_tokens"]
    assert json.loads((bge_m3_tiny / "sentence_bert_config.json").read_text())["max_seq_length"] == 8192
    state = load_file(bge_m3_tiny / "model.safetensors")
    assert state["embeddings.position_embeddings.weight"].shape == (8194, 32)
    for head, width in (("colbert_linear", 32), ("sparse_linear", 1)):
        weights = torch.load(bge_m3_tiny / f"{head}.pt", weights_only=True)
        assert weights["weight"].shape == (width, 32)
        assert weights["bias"].shape == (width,)
