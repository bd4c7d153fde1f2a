"""The examples of a job: merged, split the same way every time, formatted as the model reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.profiles import BGE_M3, E5, TextRole
from tests.unit.training.jobs import write_examples
from training.data import (
    Example,
    columns,
    load_split,
    merge,
    pairs,
    read_examples,
    split,
)  # fmt: skip
from training.errors import TrainingError
from training.rivals import most_in_a_batch, text_ids


def most(rows: dict[str, list[str]]) -> int:
    """How many of the rows may be in one batch."""
    return most_in_a_batch(text_ids(rows.values()), 1000)


TEN = [Example(f"q{i}", (f"p{i}",)) for i in range(10)]


def test_examples_are_read_as_they_were_written(tmp_path: Path) -> None:
    examples = [Example("a\u2028b", ("p", "ü"), ("n",)), Example("c", ("d",))]
    write_examples(tmp_path / "pairs.jsonl", examples)
    assert read_examples(tmp_path / "pairs.jsonl") == examples


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"query": "a"}', "{}", "null"])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"query": "a", "pos": ["b"]}\n' + line + "\n")
    with pytest.raises(TrainingError, match=r"pairs\.jsonl line 2"):
        read_examples(tmp_path / "pairs.jsonl")


def test_examples_of_one_query_become_one() -> None:
    given_ = [Example("a", ("1", "2"), ("9", "3")), Example("b", ("5",)), Example("a", ("2", "3"), ("8", "9"))]
    assert merge(given_) == [Example("a", ("1", "2", "3"), ("9", "8")), Example("b", ("5",))]


def test_a_query_without_a_positive_is_left_out() -> None:
    assert merge([Example("a", (), ("n",)), Example("b", ("p",))]) == [Example("b", ("p",))]


@given(count=st.integers(2, 60), fraction=st.floats(0, 0.5), seed=st.integers(0, 5))
def test_a_split_parts_the_examples_and_leaves_two_to_train_on(count: int, fraction: float, seed: int) -> None:
    examples = [Example(str(i), (f"p{i}",)) for i in range(count)]
    parts = split(examples, fraction=fraction, seed=seed, held_out=None)
    assert sorted([*parts.train, *parts.held_out], key=examples.index) == examples
    assert len(parts.train) >= 2
    assert bool(parts.held_out) == (fraction > 0 and count > 2)
    assert parts == split(examples, fraction=fraction, seed=seed, held_out=None)


@given(seed=st.integers(0, 9))
def test_nothing_is_held_out_if_the_rest_could_form_no_batch(seed: int) -> None:
    two_of_one_passage = [Example("a", ("p",)), Example("b", ("p",)), Example("c", ("q",))]
    parts = split(two_of_one_passage, fraction=0.1, seed=seed, held_out=None)
    assert parts.held_out in {(), (two_of_one_passage[0],), (two_of_one_passage[1],)}
    assert most(columns(parts.train, E5, seed=seed)) == 2


def test_another_seed_holds_out_others() -> None:
    first, second = (split(TEN, fraction=0.3, seed=seed, held_out=None).held_out for seed in (1, 2))
    assert len(first) == len(second) == 3
    assert first != second


def test_the_clients_own_held_out_queries_are_not_trained_on(tmp_path: Path) -> None:
    write_examples(tmp_path / "pairs.jsonl", TEN)
    write_examples(tmp_path / "eval.jsonl", [Example("q3", ("other",)), Example("new", ("p",))])
    parts = load_split(tmp_path, fraction=0.5, seed=0)
    assert [e.query for e in parts.held_out] == ["q3", "new"]
    assert [e.query for e in parts.train] == [f"q{i}" for i in range(10) if i != 3]


@pytest.mark.parametrize("examples", [[], [Example("q", ("p",))], [Example("q", ("p",)), Example("q", ("r",))]])
def test_fewer_than_two_queries_can_not_be_trained_on(tmp_path: Path, examples: list[Example]) -> None:
    write_examples(tmp_path / "pairs.jsonl", examples)
    with pytest.raises(TrainingError, match="left to train on"):
        load_split(tmp_path, fraction=0.1, seed=0)


def test_a_job_without_examples_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"pairs\.jsonl is missing"):
        load_split(tmp_path, fraction=0.1, seed=0)


def test_every_pair_is_a_row_formatted_by_its_role() -> None:
    rows = columns([Example("a", ("1", "2")), Example("b", ("3",))], E5, seed=0)
    query, passage = (lambda t: E5.format(TextRole.QUERY, t)), (lambda t: E5.format(TextRole.PASSAGE, t))
    assert rows == {"query": [query(t) for t in "aab"], "positive": [passage(t) for t in "123"]}
    assert pairs([Example("a", ("1", "2")), Example("b", ("3",))]) == 3


def test_rows_have_as_many_negatives_as_examples_have_on_average() -> None:
    given_ = [Example("a", ("1",), ("x", "y", "z")), Example("b", ("2",), ("w",)), Example("c", ("3",), ("u", "v"))]
    rows = columns(given_, BGE_M3, seed=0)
    assert list(rows) == ["query", "positive", "negative_1", "negative_2"]
    negatives = list(zip(rows["negative_1"], rows["negative_2"], strict=True))
    assert set(negatives[0]) < {"x", "y", "z"}
    assert negatives[1][0] == "w"
    assert negatives[1][1] in {"x", "y", "z", "u", "v"}  # a negative of another query
    assert set(negatives[2]) == {"u", "v"}


@given(
    st.lists(
        st.builds(
            Example,
            query=st.text("abc", min_size=1, max_size=3),
            positives=st.lists(st.sampled_from("pqrs"), min_size=1, max_size=3, unique=True).map(tuple),
            negatives=st.lists(st.sampled_from("pqrsxyz"), max_size=9, unique=True).map(tuple),
        ),
        min_size=2,
        max_size=8,
    )
)
def test_all_columns_have_one_length_and_hard_negatives_are_no_positives(examples: list[Example]) -> None:
    examples = merge(examples)
    rows = columns(examples, BGE_M3, seed=1)
    assert {len(column) for column in rows.values()} == {pairs(examples)}
    by_query = {e.query: e for e in examples}
    strangers = {e.positives[0] for e in examples}
    for query, positive, *negatives in zip(*rows.values(), strict=True):
        own = by_query[query]
        assert positive in own.positives
        if strangers - set(own.positives) or own.negatives:  # else no negative is to be had
            assert not set(negatives) & set(own.positives)


def test_a_negative_that_all_examples_share_keeps_none_of_them_apart() -> None:
    given_ = [Example(f"q{i}", (f"p{i}",), ("the same",)) for i in range(100)]
    assert most(columns(given_, E5, seed=0)) == 100


def test_two_examples_of_which_one_has_a_negative_are_a_batch() -> None:
    given_ = [Example("a", ("p",), ("n",)), Example("b", ("q",))]
    assert most(columns(given_, E5, seed=0)) == 2
