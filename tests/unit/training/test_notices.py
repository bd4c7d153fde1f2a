"""What is odd about examples is said in one sentence each, with what is done with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.domain.profiles import BGE_M3, E5, Profile, TextRole
from serve_app.jobs.training_pairs import Example
from tests.unit.training.training_jobs import write_examples
from training.data.examples import Notice
from training.data.notices import clean, notice_negatives
from training.data.splitting import load_split

Q, P = (E5.format(role, "") for role in (TextRole.QUERY, TextRole.PASSAGE))


@pytest.mark.parametrize(
    ("examples", "profile", "cleaned", "notices"),
    [
        ([Example("a", ("b",), ("c",))], E5, None, []),
        (
            [Example(Q + "a", (P + "b",), (P + "c",)), Example("d", ("e",))], E5,
            [Example("a", ("b",), ("c",)), Example("d", ("e",))],
            [("info", f"the model's own prefix ({Q!r} and {P!r}) is already in front of 1 query and 2 passages")],
        ),
        ([Example(Q + " ", ("b",))], E5, None, [("warning", f"{Q!r} is in front of 1 query, where")]),
        ([Example("a", (Q + "b",))], E5, None, [("warning", f"{Q!r} is in front of 1 passage, where it is not")]),
        ([Example(Q + "a", ("b",))], BGE_M3, None, [("warning", f"{Q!r} is in front of 1 query")]),
        ([Example('"a"', ("b",)), Example("c", ('"d"',))], E5, None,
         [("warning", "quotation marks surround 1 query and 1 passage and are trained on as part of the text")]),
        ([Example(q, ("b",)) for q in ("\u201cto be\u201d", '"a', "c", "d")], E5, None,
         [("info", "quotation marks surround 1 query and")]),
        (
            [Example("a b", ("yes",)), Example("A  B", ("more",), ("Yes", "no")), Example("c", ("d",), ("yes",))], E5,
            [Example("a b", ("yes",)), Example("A  B", ("more",), ("no",)), Example("c", ("d",), ("yes",))],
            [("warning", "negatives that another example gives as answers to the same query count as answers: 1 ex")],
        ),
    ],
)  # fmt: skip
def test_every_change_of_the_examples_has_a_notice(
    examples: list[Example], profile: Profile, cleaned: list[Example] | None, notices: list[tuple[str, str]]
) -> None:
    found, reported = clean(examples, profile)
    assert found == (examples if cleaned is None else cleaned)
    assert [notice.level for notice in reported] == [level for level, _ in notices]
    assert all(notice.message.startswith(start) for notice, (_, start) in zip(reported, notices, strict=True))


def test_a_job_has_the_notices_of_both_files_and_adds_no_prefix_twice(tmp_path: Path) -> None:
    write_examples(tmp_path / "pairs.jsonl", [Example(Q + text, (P + text,)) for text in "abc"])
    write_examples(tmp_path / "eval.jsonl", [Example(Q + "A", ("x",))])
    parts = load_split(tmp_path, E5, fraction=0.1, seed=0)
    assert [example.query for example in parts.train] == ["b", "c"]
    assert [example.query for example in parts.held_out] == ["A"]
    own, of_held_out, removed = (notice.message for notice in parts.notices)
    assert own.endswith("need not be sent")
    assert of_held_out.startswith("held-out examples: the model's own prefix")
    assert removed.startswith("held-out queries are not trained on")


def test_sampled_and_filled_up_negatives_have_a_notice() -> None:
    examples = [Example("a", ("1",), ("x", "y", "z")), Example("b", ("2",), ("w",)), Example("c", ("3",), ("u", "v"))]
    (notice,) = notice_negatives(examples, 2)
    assert notice == Notice("info", notice.message)
    assert "2 negatives, the average: 1 queries have more" in notice.message
    assert notice_negatives([Example("a", ("1",), ("x",))], 1) == []
