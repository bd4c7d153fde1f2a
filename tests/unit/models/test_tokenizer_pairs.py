"""Pairs of texts: the reference is transformers on the same folder, and FlagEmbedding's reranker for what is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.models.tokenizer import TextTokenizer

QUERY = "how do I read a file?"
CANDIDATES = (
    "Open the file and iterate over it line by line.",
    "a",
    "",
    "double  blanks, a tab\tand a trailing blank ",
    "敏捷的狐狸跳过了懒狗。",
    "<s> a </s></s> b <mask>",
)
LIMIT = 512

Reference = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ours(bge_m3_tiny: Path) -> TextTokenizer:
    return TextTokenizer(bge_m3_tiny, LIMIT)


@pytest.fixture(scope="module")
def theirs(bge_m3_tiny: Path) -> Reference:
    from transformers import AutoTokenizer

    reference: Reference = AutoTokenizer.from_pretrained(bge_m3_tiny)
    return reference


def cut_by_flag_embedding(theirs: Reference, query: str, candidate: str, limit: int) -> list[int]:
    """What ``BaseReranker.compute_score_single_gpu`` of FlagEmbedding 1.4 does with a pair, for texts that survive
    being decoded and tokenised again."""
    decode = theirs.decode  # type: ignore[attr-defined]
    head = theirs(query, add_special_tokens=False, max_length=limit * 3 // 4, truncation=True)["input_ids"]
    tail = theirs(candidate, add_special_tokens=False, max_length=limit, truncation=True)["input_ids"]
    pair = theirs(decode(head), decode(tail), truncation="only_second", max_length=limit)
    ids: list[int] = pair["input_ids"]
    return ids


def test_ids_equal_those_of_transformers(ours: TextTokenizer, theirs: Reference) -> None:
    out = ours.pairs(QUERY, CANDIDATES)
    expected = theirs([QUERY] * len(CANDIDATES), list(CANDIDATES))  # lists: alone, "" would be no second text there
    assert [row.tolist() for row in out.batch().rows()] == expected["input_ids"]
    assert out.ids.dtype == out.lengths.dtype == out.full_lengths.dtype == np.int32


@given(query=st.text(), candidates=st.lists(st.text(), min_size=1, max_size=5))
def test_ids_of_any_pairs_equal_those_of_transformers(
    ours: TextTokenizer, theirs: Reference, query: str, candidates: list[str]
) -> None:
    rows = [row.tolist() for row in ours.pairs(query, candidates).batch().rows()]
    assert rows == theirs([query] * len(candidates), candidates)["input_ids"]


@pytest.mark.parametrize("query_words", [1, 380, 383, 384, 385, 600])
@pytest.mark.parametrize("candidate_words", [1, 100, 123, 124, 125, 600])
def test_long_pairs_are_cut_as_the_reranker_of_flag_embedding_cuts_them(
    ours: TextTokenizer, theirs: Reference, query_words: int, candidate_words: int
) -> None:
    query, candidate = " ".join(["the"] * query_words), " ".join(["of"] * candidate_words)
    out = ours.pairs(query, [candidate])
    assert out.ids.tolist() == cut_by_flag_embedding(theirs, query, candidate, LIMIT)
    assert out.lengths.tolist() == [len(out.ids)]
    assert out.full_lengths.tolist() == [query_words + candidate_words + 4]


def test_a_long_candidate_is_cut_alone_and_named(ours: TextTokenizer) -> None:
    candidates = ["a", "of " * 600, "b"]
    out = ours.pairs(QUERY, candidates)
    assert out.truncated == [1]
    rows = out.batch().rows()
    assert len(rows[1]) == LIMIT
    for i in (0, 2):
        assert rows[i].tolist() == ours.pairs(QUERY, [candidates[i]]).ids.tolist()


def test_where_the_query_is_cut_every_pair_counts_as_cut(ours: TextTokenizer) -> None:
    assert ours.pairs("the " * 400, ["a", "b"]).truncated == [0, 1]


@pytest.mark.parametrize("limit", [4, 5, 6, 7, 16])
def test_no_pair_is_longer_than_the_limit_however_small(bge_m3_tiny: Path, limit: int) -> None:
    out = TextTokenizer(bge_m3_tiny, limit).pairs("the " * 40, ["of " * 40, "a"])
    assert out.lengths.max() <= limit
    before, *_, after = out.batch().rows()[0].tolist()
    assert (before, after) == (0, 2)


def test_no_candidates_have_no_pairs(ours: TextTokenizer) -> None:
    out = ours.pairs(QUERY, [])
    assert (len(out.ids), len(out.lengths), out.truncated) == (0, 0, [])
