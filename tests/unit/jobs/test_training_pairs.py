"""Lines and examples of clients: what is kept, what is left out, and that nothing is lost between the two."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.jobs.pair_faults import (
    BROKEN_TEXT,
    CONTRADICTION,
    EMPTY_SIDE,
    HEADER,
    NO_POSITIVE,
    NOT_ONE_TAB,
    NUL,
    TOO_LONG,
)
from serve_app.jobs.training_pairs import Example, Ignored, Pairs, parse_examples, parse_lines

LIMIT = 50

sides = st.text(
    st.characters(exclude_characters="\0\t\n\r\ufeff", exclude_categories=["Cs"]), min_size=1, max_size=LIMIT
).filter(lambda text: not text.isspace())
lines = st.lists(st.text(st.sampled_from("ab \t\r\u2028\u0085\x0b\ud83d") | st.characters(), max_size=8), max_size=12)


def parsed(text: str) -> Pairs:
    return parse_lines(text, max_text_chars=LIMIT)


@given(st.lists(st.tuples(sides, sides), unique=True, max_size=20), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_good_pairs_are_kept_exactly_as_they_came(pairs: list[tuple[str, str]], end: str, has_last_end: bool) -> None:
    text = end.join(f"{query}\t{passage}" for query, passage in pairs) + end * (has_last_end and bool(pairs))
    assert parsed(text) == Pairs([Example(query, (passage,)) for query, passage in pairs], [])


@given(lines)
def test_every_line_is_accepted_or_ignored_once_and_in_order(parts: list[str]) -> None:
    result = parsed("".join(part + "\n" for part in parts))
    count = sum(part.count("\n") + 1 for part in parts)
    assert len(result.accepted) + len(result.ignored) == count
    numbers = [ignored.line for ignored in result.ignored]
    assert numbers == sorted(set(numbers))
    assert all(1 <= number <= count for number in numbers)


@given(lines)
def test_the_fast_reader_agrees_with_one_that_takes_no_short_cuts(parts: list[str]) -> None:
    text = "\n".join(parts)
    found = parsed(text)
    hints = [Ignored(line, reason.partition(";")[0]) for line, reason in found.ignored]  # what to do is told behind it
    assert Pairs(found.accepted, hints) == slowly(text)


def slowly(text: str) -> Pairs:
    """The oracle: one character at a time, one rule after the other."""
    rows = [""]
    for character in text.removeprefix("\ufeff"):
        if character == "\n":
            rows[-1] = rows[-1].removesuffix("\r")
            rows.append("")
        else:
            rows[-1] += character
    rows[-1] = rows[-1].removesuffix("\r")
    if text.endswith("\n") or not text.removeprefix("\ufeff"):
        rows.pop()
    result = Pairs([], [])
    seen: list[Example] = []
    for number, row in enumerate(rows, start=1):
        query, *rest = row.split("\t")
        example = Example(query, tuple(rest))
        if len(rest) != 1:
            result.ignored.append(Ignored(number, NOT_ONE_TAB))  # type: ignore[attr-defined]
            seen.append(Example("", ()))
            continue
        reason = next(filter(None, (fault(side) for side in (query, rest[0]))), None)
        if reason is None and example in seen:
            reason = f"the same pair as in line {seen.index(example) + 1}"
        seen.append(Example("", ()) if reason else example)
        (result.ignored if reason else result.accepted).append(Ignored(number, reason) if reason else example)  # type: ignore[attr-defined]
    return result


def fault(side: str) -> str | None:
    if side.strip() == "":
        return EMPTY_SIDE
    if len(side) > LIMIT:
        return TOO_LONG
    if any("\ud800" <= character <= "\udfff" for character in side):
        return BROKEN_TEXT
    return NUL if "\0" in side else None


@pytest.mark.parametrize(
    ("text", "ignored"),
    [
        ("", []),
        ("a\tb", []),
        ("\n", [(1, NOT_ONE_TAB)]),
        ("a\tb\n\nc\td\n", [(2, NOT_ONE_TAB)]),
        ("a b", [(1, NOT_ONE_TAB)]),
        ("\ufeffquery\tpassage\nquery\tpassage", [(1, HEADER)]),  # the second is a pair
        ('"Question"\t"Positive passages"\r\na\tb', [(1, HEADER)]),
        ("passage\tquery\na\tpassage", []),
        ("a\tb\nquery\tpassage", []),
        ("\tb", [(1, EMPTY_SIDE)]),
        ("a\t", [(1, EMPTY_SIDE)]),
        ("a\t \u3000", [(1, EMPTY_SIDE)]),
        ("a\t\r\n", [(1, EMPTY_SIDE)]),
        ("a\tb\nc\td\r\na\tb\r\n", [(3, "the same pair as in line 1")]),
        ("a\tb\nb\ta\na\tc", []),
        ("a\tb\n" * 3, [(2, "the same pair as in line 1"), (3, "the same pair as in line 1")]),
        ("a\tb\ud83d\nc\td", [(1, BROKEN_TEXT)]),
        ("a\0\t\0b\0", [(1, NUL)]),
        ("a\t" + "b" * LIMIT, []),
        ("a\t" + "b" * (LIMIT + 1), [(1, TOO_LONG)]),
    ],
)
def test_what_is_no_pair_is_ignored_with_its_line_and_reason(text: str, ignored: list[tuple[int, str]]) -> None:
    assert parsed(text).ignored == ignored


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "a\tb\tc",
            "it has 3 columns; negatives are sent as JSON, as `examples` or JSON lines with",
        ),
        ("a\tb\rc\td", "it has 3 columns"),
        ("a\rb", "a carriage return alone ends no line"),
        (r"a\tb", "it has a backslash and a t instead of a tab"),
        ('{"query": "a"}', "JSON is sent as the list `examples`, or as a file with one object a line"),
        ('[{"query": "a"}]', "JSON is sent as"),
    ],
)
def test_a_line_of_another_form_is_told_where_to_send_it(line: str, says: str) -> None:
    (ignored,) = parsed(line).ignored
    assert ignored.reason.startswith(f"{NOT_ONE_TAB}; {says}")


def test_a_byte_order_mark_is_no_part_of_the_first_query() -> None:
    assert parsed("\ufeffa\tb\n\ufeffc\td").accepted == [Example("a", ("b",)), Example("\ufeffc", ("d",))]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x85", "\r"])
def test_only_a_line_feed_ends_a_line(separator: str) -> None:
    assert parsed(f"a{separator}b\tc{separator}d\n").accepted == [Example(f"a{separator}b", (f"c{separator}d",))]


def test_a_hundred_thousand_lines_are_counted_to_the_last() -> None:
    text = "".join(f"query {i}\tpassage {i}\n" for i in range(100_000)) + "no pair\n"
    result = parsed(text)
    assert (len(result.accepted), result.ignored) == (100_000, [(100_001, NOT_ONE_TAB)])


# ------------------------------------------------------------------ lists of examples


def read(*examples: dict[str, Any]) -> Pairs:
    return parse_examples(examples, max_text_chars=LIMIT)


def test_an_example_keeps_its_passages_in_order_and_each_once() -> None:
    result = read({"query": "q", "pos": ["a", "b", "a"], "neg": ["c", "c"]}, {"query": "q2", "pos": ["d"]})
    assert result == Pairs([Example("q", ("a", "b"), ("c",)), Example("q2", ("d",), ())], [])


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        ({"query": "q", "pos": []}, NO_POSITIVE),
        ({"query": " ", "pos": ["a"]}, EMPTY_SIDE),
        ({"query": "q", "pos": ["a", ""]}, EMPTY_SIDE),
        ({"query": "q", "pos": ["a"], "neg": ["\n"]}, EMPTY_SIDE),
        ({"query": "q", "pos": ["a"], "neg": ["b", "a"]}, CONTRADICTION),
        ({"query": "q", "pos": ["A b"], "neg": ["a  B"]}, CONTRADICTION),
        ({"query": "q", "pos": ["a" * (LIMIT + 1)]}, TOO_LONG),
        ({"query": "\ud83d", "pos": ["a"]}, BROKEN_TEXT),
        ({"query": "q", "pos": ["a\0"]}, NUL),
    ],
)
def test_an_example_that_is_none_is_ignored_alone(example: dict[str, Any], reason: str) -> None:
    good = {"query": "x", "pos": ["y\tz\nw"]}
    assert read(good, example) == Pairs([Example("x", ("y\tz\nw",))], [Ignored(2, reason)])


def test_an_example_that_was_there_before_is_ignored() -> None:
    one, other = {"query": "q", "pos": ["a"]}, {"query": "q", "pos": ["a"], "neg": ["b"]}
    assert read(one, other, one).ignored == [(3, "the same example as number 1")]


# ------------------------------------------------------------------ for the training


@given(sides, st.lists(sides, min_size=1, max_size=3), st.lists(sides, max_size=3))
def test_an_example_is_one_line_of_json_that_any_reader_understands(q: str, pos: list[str], neg: list[str]) -> None:
    line = Example(q, tuple(pos), tuple(neg)).to_json()
    assert "\n" not in line
    assert json.loads(line.encode()) == {"query": q, "pos": pos, "neg": neg}


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("", False),
        ("a\tb", False),
        ("a\tb\na\tc", False),
        ("a\tb\nc\tb", False),
        ("a\tb\na\tc\nd\te", True),
        ("a\tb\na\tc\nd\tb", True),
        ("a b\tc\nA  B\td", False),
        ("a\tC\nb\tc", False),
    ],
)
def test_pairs_have_negatives_if_two_of_them_differ_in_query_and_passage(text: str, has: bool) -> None:
    assert parsed(text).has_in_batch_negatives is has


def test_negatives_of_its_own_do_not_make_an_example_trainable_alone() -> None:
    one = {"query": "q", "pos": ["a"], "neg": ["x"]}
    assert not read(one).has_in_batch_negatives
    assert not read(one, {"query": "q", "pos": ["b"], "neg": ["y"]}).has_in_batch_negatives
    assert not read(one, {"query": "r", "pos": ["a"], "neg": ["y"]}).has_in_batch_negatives
    assert read(one, {"query": "r", "pos": ["b"], "neg": ["y"]}).has_in_batch_negatives
