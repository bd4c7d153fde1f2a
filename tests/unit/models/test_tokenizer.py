"""The reference is transformers' own tokenizer on the same folder, because models are trained with that one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.errors import ModelLoadError
from serve_app.models.tokenizer import TextTokenizer

ODD = (
    "How do I read a file line by line?",
    "",
    "a",
    " ",
    "   \t\n ",
    "  leading blanks",
    "trailing blanks  ",
    "double  blanks   in    a row",
    "tab\tand\nnewline\r\nand\x0bmore\x0c",
    "control \x00\x01\x07\x1b\x1c\x7f\x85 characters",
    "zero\u200bwidth\u200djoiner\ufeffmark\u00adhyphen",
    "no\u00a0break \u3000全角　空白\u2028line\u2029paragraph",
    "😀 👩‍👩‍👧 🏳️‍🌈 🇨🇭 e\u0301",
    "مرحبا بالعالم \u202eright to left\u202c שלום",
    "敏捷的狐狸跳过了懒狗。素早い狐。빠른 여우",
    "ﬁ ½ ｆｕｌｌ ² ™ İ ß",
    "<s> </s> <pad> <unk> <mask>",
    "a<mask> b <mask>  c<s>d",
    "▁▁ ▁a ▁",
    "query:  passage: query: ",
    "\U0010ffff\ue000\U000e0001",
)

Reference = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", params=["e5", "bge-m3"])
def pair(request: pytest.FixtureRequest, e5_tiny: Path, bge_m3_tiny: Path) -> tuple[TextTokenizer, Reference, int]:
    """Ours, theirs and the model's limit."""
    from transformers import AutoTokenizer

    folder, limit = {"e5": (e5_tiny, 512), "bge-m3": (bge_m3_tiny, 8192)}[request.param]
    return TextTokenizer(folder, limit), AutoTokenizer.from_pretrained(folder), limit


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_ids_equal_those_of_transformers(pair: tuple[TextTokenizer, Reference, int], text: str) -> None:
    ours, theirs, _ = pair
    assert ours([text]).ids.tolist() == theirs(text)["input_ids"]


@given(
    st.lists(
        st.text(st.sampled_from("ab▁ \t\n\u00a0\u3000\u200b\x00é😀م狐<s>/pdm")) | st.text(), min_size=1, max_size=8
    )
)
def test_ids_of_any_texts_equal_those_of_transformers(
    pair: tuple[TextTokenizer, Reference, int], texts: list[str]
) -> None:
    ours, theirs, _ = pair
    assert [row.tolist() for row in ours(texts).batch().rows()] == theirs(texts)["input_ids"]


@pytest.mark.parametrize("words", [1, 505, 508, 509, 510, 511, 512, 2000, 9000])
def test_a_long_text_is_cut_as_transformers_cuts_it(pair: tuple[TextTokenizer, Reference, int], words: int) -> None:
    ours, theirs, limit = pair
    text = "the " * words
    out = ours([text])
    assert out.ids.tolist() == theirs(text, truncation=True, max_length=limit)["input_ids"]
    assert out.full_lengths.tolist() == [len(theirs(text)["input_ids"])]
    assert out.lengths.tolist() == [min(limit, out.full_lengths[0])]


@pytest.mark.parametrize("limit", [2, 3, 4, 7, 50])
def test_a_text_is_cut_as_transformers_cuts_it_at_any_limit(e5_tiny: Path, limit: int) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(e5_tiny)(list(ODD), truncation=True, max_length=limit)["input_ids"]
    assert [row.tolist() for row in TextTokenizer(e5_tiny, limit)(ODD).batch().rows()] == theirs


def test_cut_texts_are_named_by_index_with_their_full_lengths(e5_tiny: Path) -> None:
    tokenizer = TextTokenizer(e5_tiny, 6)
    uncut = TextTokenizer(e5_tiny, 10_000)
    texts = ["a", "the the the the the the the", "a a", "the " * 40, "the the the the"]
    out = tokenizer(texts)
    assert out.full_lengths.tolist() == [len(uncut([text]).ids) for text in texts] == [3, 9, 4, 42, 6]
    assert out.lengths.tolist() == [3, 6, 4, 6, 6]
    assert out.truncated == [1, 3]
    assert tokenizer(["a"]).truncated == []


def test_what_is_cut_keeps_its_closing_token(e5_tiny: Path) -> None:
    cut, whole = TextTokenizer(e5_tiny, 6)(["the " * 40]), TextTokenizer(e5_tiny, 512)(["the " * 40])
    assert cut.ids[:5].tolist() == whole.ids[:5].tolist()
    assert cut.ids[5] == whole.ids[-1]


def test_a_batch_is_its_texts_one_by_one_in_int32(e5_tiny: Path) -> None:
    tokenizer = TextTokenizer(e5_tiny, 512)
    out = tokenizer(ODD)
    assert [row.tolist() for row in out.batch().rows()] == [tokenizer([text]).ids.tolist() for text in ODD]
    assert out.ids.dtype == out.lengths.dtype == out.full_lengths.dtype == np.int32


def test_several_threads_get_the_same_ids(e5_tiny: Path) -> None:
    tokenizer = TextTokenizer(e5_tiny, 20)
    expected = tokenizer(ODD).ids.tolist()
    with ThreadPoolExecutor(4) as threads:
        assert all(out.ids.tolist() == expected for out in threads.map(tokenizer, [ODD] * 40))


# ------------------------------------------------------------------ folders that cannot be read


def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors")))


@pytest.mark.parametrize("content", ["", "{", "{}", "[]"])
def test_a_broken_tokenizer_is_refused_and_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelLoadError) as caught:
        TextTokenizer(tmp_path, 512)
    assert str(tmp_path / "tokenizer.json") in caught.value.message


@pytest.mark.parametrize("content", ["", "{", "[1]", '"XLMRobertaTokenizer"'])
def test_a_broken_tokenizer_configuration_is_refused_and_named(e5_tiny: Path, tmp_path: Path, content: str) -> None:
    folder = copied(e5_tiny, tmp_path)
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(ModelLoadError) as caught:
        TextTokenizer(folder, 512)
    assert str(folder / "tokenizer_config.json") in caught.value.message


def test_a_tokenizer_of_another_class_splits_by_its_file(e5_tiny: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    folder = copied(e5_tiny, tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "double  blanks "
    assert TextTokenizer(folder, 512)([text]).ids.tolist() == plain.encode(text).ids
    assert TextTokenizer(e5_tiny, 512)([text]).ids.tolist() != plain.encode(text).ids
    (folder / "tokenizer_config.json").unlink()
    assert TextTokenizer(folder, 512)([text]).ids.tolist() == plain.encode(text).ids


def test_padding_and_truncation_saved_in_the_file_do_not_count(e5_tiny: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    folder = copied(e5_tiny, tmp_path)
    saved = Tokenizer.from_file(str(folder / "tokenizer.json"))
    saved.enable_padding(length=64)
    saved.enable_truncation(4)
    saved.save(str(folder / "tokenizer.json"))
    assert TextTokenizer(folder, 512)(ODD).ids.tolist() == TextTokenizer(e5_tiny, 512)(ODD).ids.tolist()
