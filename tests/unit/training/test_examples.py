"""The examples of a job: merged, formatted as the model reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.profiles import BGE_M3, E5, TextRole
from serve_app.jobs.training_pairs import Example
from tests.unit.training.training_jobs import write_examples
from training.data.conflict_free_batches import largest_batch, text_ids
from training.data.examples import columns, merge, pairs, read_examples
from training.training_errors import TrainingError


def most(rows: dict[str, list[str]]) -> int:
    """How many of the rows may be in one batch."""
    return largest_batch(text_ids(rows.values()), 1000)


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


def test_a_negative_that_all_examples_share_is_not_a_conflict() -> None:
    given_ = [Example(f"q{i}", (f"p{i}",), ("the same",)) for i in range(100)]
    assert most(columns(given_, E5, seed=0)) == 100


def test_two_examples_of_which_one_has_a_negative_are_a_batch() -> None:
    given_ = [Example("a", ("p",), ("n",)), Example("b", ("q",))]
    assert most(columns(given_, E5, seed=0)) == 2
