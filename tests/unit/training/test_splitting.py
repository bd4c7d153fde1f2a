"""Training and held-out examples: the same ones every time, and nothing held out is trained on in another spelling."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.profiles import E5
from serve_app.domain.unicode import fold
from serve_app.jobs.training_pairs import Example
from tests.unit.training.training_jobs import write_examples
from training.data.conflict_free_batches import largest_batch, text_ids
from training.data.examples import columns, merge
from training.data.grouping import group_examples
from training.data.splitting import Split, load_split, split
from training.training_errors import TrainingError

TEN = [Example(f"q{i}", (f"p{i}",)) for i in range(10)]


def most(rows: dict[str, list[str]]) -> int:
    """How many of the rows may be in one batch."""
    return largest_batch(text_ids(rows.values()), 1000)


def leaks(parts: Split) -> set[str]:
    """Texts of held-out examples that are trained on, in any spelling."""
    train, held_out = (
        {fold(text) for example in part for text in (example.query, *example.positives)}
        for part in (parts.train, parts.held_out)
    )
    return train & held_out


@given(count=st.integers(2, 60), fraction=st.floats(0, 0.5), seed=st.integers(0, 5))
def test_a_split_parts_the_examples_and_leaves_two_to_train_on(count: int, fraction: float, seed: int) -> None:
    examples = [Example(str(i), (f"p{i}",)) for i in range(count)]
    parts = split(examples, fraction=fraction, seed=seed)
    assert sorted([*parts.train, *parts.held_out], key=examples.index) == examples
    assert len(parts.train) >= 2
    assert bool(parts.held_out) == (fraction > 0 and count > 2)
    assert parts == split(examples, fraction=fraction, seed=seed)


@given(seed=st.integers(0, 9))
def test_nothing_is_held_out_if_the_rest_could_form_no_batch(seed: int) -> None:
    two_of_one_passage = [Example("a", ("p",)), Example("b", ("p",)), Example("c", ("q",))]
    parts = split(two_of_one_passage, fraction=0.1, seed=seed)
    assert not parts.held_out
    assert most(columns(parts.train, E5, seed=seed)) == 2


def test_another_seed_holds_out_others() -> None:
    first, second = (split(TEN, fraction=0.3, seed=seed).held_out for seed in (1, 2))
    assert len(first) == len(second) == 3
    assert first != second


def test_the_clients_own_held_out_queries_are_not_trained_on(tmp_path: Path) -> None:
    write_examples(tmp_path / "pairs.jsonl", TEN)
    write_examples(tmp_path / "eval.jsonl", [Example("q3", ("other",)), Example("new", ("p",))])
    parts = load_split(tmp_path, E5, fraction=0.5, seed=0)
    assert [e.query for e in parts.held_out] == ["q3", "new"]
    assert [e.query for e in parts.train] == [f"q{i}" for i in range(10) if i != 3]


@pytest.mark.parametrize("examples", [[], [Example("q", ("p",))], [Example("q", ("p",)), Example("q", ("r",))]])
def test_fewer_than_two_queries_cannot_be_trained_on(tmp_path: Path, examples: list[Example]) -> None:
    write_examples(tmp_path / "pairs.jsonl", examples)
    with pytest.raises(TrainingError, match="remain to train on"):
        load_split(tmp_path, E5, fraction=0.1, seed=0)


def test_a_job_without_examples_fails_with_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"pairs\.jsonl is missing"):
        load_split(tmp_path, E5, fraction=0.1, seed=0)


# ------------------------------------------------------------------ groups


def grouped(*examples: Example) -> list[list[int]]:
    return group_examples(examples)


def test_examples_that_share_a_text_are_one_group_through_others_too() -> None:
    shared = (Example("a", ("1",)), Example("b", ("2", "3")), Example("c", ("3", "1")), Example("d", ("4",)))
    assert grouped(*shared) == [[0, 1, 2], [3]]
    assert grouped(Example("a", ("1",), ("n",)), Example("b", ("2",), ("n",))) == [[0], [1]]  # negatives divide nothing


@pytest.mark.parametrize(
    "other", ["how do i rotate logs", " How  do\tI rotate\u00a0logs ", "Ｈow do I rotate logs", "HOW DO I ROTATE LOGS"]
)
def test_case_white_space_and_unicode_form_tell_no_two_texts_apart(other: str) -> None:
    assert grouped(Example("How do I rotate logs", ("1",)), Example(other, ("2",))) == [[0, 1]]
    assert grouped(Example("a", ("How do I rotate logs",)), Example("b", (other,))) == [[0, 1]]
    assert grouped(Example("How do I rotate logs", ("1",)), Example("1", (other,))) == [[0, 1]]  # the pair, reversed


def test_spellings_of_one_query_are_on_one_side_of_the_split() -> None:
    questions = [f"How do I rotate log {i}" for i in range(100)]
    twins = [Example(text, (f"passage {n}",)) for n, text in enumerate([*questions, *map(str.lower, questions)])]
    parts = split(twins, fraction=0.2, seed=42)
    assert not leaks(parts)
    assert (len(parts.held_out), parts.held_out_groups, parts.train_groups) == (40, 20, 80)
    (notice,) = parts.notices
    assert notice.level == "info"
    assert "40 of 200 queries are held out: 20 of 100 groups" in notice.message


@given(
    examples=st.lists(
        st.builds(Example, query=st.text("abAB ", min_size=1, max_size=2).filter(str.strip),
                  positives=st.lists(st.sampled_from("pqrstuvwPQRST"), min_size=1, max_size=2, unique=True).map(tuple)),
        min_size=2, max_size=30,
    ),
    fraction=st.floats(0.01, 0.5), seed=st.integers(0, 5),
)  # fmt: skip
def test_held_out_examples_share_no_text_with_those_that_are_trained_on(
    examples: list[Example], fraction: float, seed: int
) -> None:
    examples = merge(examples)
    parts = split(examples, fraction=fraction, seed=seed)
    assert not leaks(parts)
    assert sorted([*parts.train, *parts.held_out], key=examples.index) == examples
    assert parts.train_groups + parts.held_out_groups == len(group_examples(examples))
    assert len(parts.held_out) <= 2 * max(1, round(fraction * len(examples)))
    assert len(parts.notices) == 1  # how many groups are held out, or why none is


@pytest.mark.parametrize(
    ("examples", "reason"),
    [
        (
            [Example(f"q{i}", ("the same", f"p{i}")) for i in range(50)],
            "the 50 queries form one group that shares texts",
        ),
        ([Example(f"q{i}", (f"p{i % 2}",)) for i in range(50)], "the smallest group has 25 examples, and 5 were to be"),
    ],
)
def test_nothing_is_held_out_of_a_few_large_groups_and_a_warning_reports_it(
    examples: list[Example], reason: str
) -> None:
    parts = split(examples, fraction=0.1, seed=0)
    assert not parts.held_out
    (notice,) = parts.notices
    assert notice.level == "warning"
    assert reason in notice.message
    assert "eval_text_content" in notice.message


# ------------------------------------------------------------------ the client's own held-out examples


def test_own_held_out_queries_are_not_trained_on_in_any_spelling_and_known_passages_are_reported(
    tmp_path: Path,
) -> None:
    write_examples(tmp_path / "pairs.jsonl", [Example("Q3 ", ("other",)), *TEN])
    write_examples(tmp_path / "eval.jsonl", [Example("q3", ("other",)), Example("new", ("P4",)), Example("x", ("y",))])
    parts = load_split(tmp_path, E5, fraction=0.1, seed=0)
    assert [e.query for e in parts.train] == [f"q{i}" for i in range(10) if i != 3]
    removed, known = parts.notices
    assert (removed.level, removed.message[:23]) == ("info", "held-out queries are no")
    assert removed.message.endswith(": 2 removed")
    assert known.level == "warning"
    assert "passages of 1 of 3 held-out queries are trained on" in known.message
