"""Files of examples: their form is told by what is in them, and no line is lost without a word."""

from __future__ import annotations

import pytest

from serve_app.jobs.pair_faults import CONTRADICTION, EMPTY_SIDE, NOT_ONE_TAB
from serve_app.jobs.pair_files import BLANK, NAMED_TWICE, NO_OBJECT, parse_file
from serve_app.jobs.training_pairs import Example, Ignored, Pairs

GOOD = '{"query": "q", "pos": ["p"]}'


def read(text: str) -> Pairs:
    return parse_file(text, max_text_chars=20)


def test_json_lines_are_examples_with_their_negatives() -> None:
    pairs = read(GOOD + '\r\n{"query": "r", "pos": ["p", "o", "p"], "neg": ["n"]}\n')
    assert pairs == Pairs([Example("q", ("p",)), Example("r", ("p", "o"), ("n",))], [])


@pytest.mark.parametrize("first", ["{q\tp", "{}\tp", '{"query"\tp', "\n{q\tp"])
def test_a_tab_makes_a_line_a_pair_even_if_its_query_begins_as_an_object(first: str) -> None:
    query = first.strip().split("\t")[0]
    assert Example(query, ("p",)) in read(first + "\nr\to\n").accepted


def test_tabs_between_the_parts_of_an_object_make_no_pair_of_it() -> None:
    assert read('{"query":\t"q", "pos": ["p"]}\n').accepted == [Example("q", ("p",))]


def test_one_broken_line_at_the_start_does_not_make_the_others_something_else() -> None:
    pairs = read("\n{broken\n" + GOOD)
    assert pairs == Pairs([Example("q", ("p",))], [Ignored(1, BLANK), Ignored(2, NO_OBJECT)])


def test_lines_of_the_other_form_are_told() -> None:
    (ignored,) = read("q\tp\n" + GOOD).ignored
    assert (ignored.line, ignored.reason.partition(";")[0]) == (2, NOT_ONE_TAB)
    assert read(GOOD + "\nq\tp").ignored == [Ignored(2, NO_OBJECT)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[]", NO_OBJECT),
        ("  ", BLANK),
        ('{"query": 1' + "0" * 5000 + "}", NO_OBJECT),
        ('{"a": ' + "[" * 100_000, NO_OBJECT),
        ('{"query": "q", "query": "r", "pos": ["p"]}', NAMED_TWICE),
        ('{"messages": []}', "has a field 'messages'; an example has query, pos and, perhaps, neg"),
        ('{"\\ud83d": 1}', "has a field '\\ud83d'; an example has query, pos and, perhaps, neg"),
        (
            '{"query": "q", "positive": ["p"]}',
            "has a field 'positive'; it is called 'pos' here; an example has query, pos and, perhaps, neg",
        ),
        (
            '{"query": "q", "Hard_Negatives": ["p"]}',
            "has a field 'Hard_Negatives'; it is called 'neg' here; an example has query, pos and, perhaps, neg",
        ),
        (
            '{"query": "q", "question": "q", "pos": ["p"]}',
            "has a field 'question'; an example has query, pos and, perhaps, neg",
        ),
        ('{"query": "q"}', "lacks the field 'pos'"),
        ('{"pos": ["p"]}', "lacks the field 'query'"),
        ('{"query": 5, "pos": ["p"]}', "query is not a text"),
        (
            '{"query": "q", "pos": "p"}',
            'pos is not a list of texts; one text is written as a list, too: {"pos": ["..."]}',
        ),
        ('{"query": "q", "pos": ["p"], "neg": [null]}', "neg is not a list of texts"),
        ('{"query": " ", "pos": ["p"]}', EMPTY_SIDE),
        ('{"query": "q", "pos": ["p"], "neg": ["p"]}', CONTRADICTION),
        (GOOD, "the same example as number 1"),
    ],
)
def test_a_line_that_is_no_example_is_reported_with_its_number_and_the_reason(line: str, reason: str) -> None:
    pairs = read(f"{GOOD}\n{line}\n")
    assert pairs == Pairs([Example("q", ("p",))], [Ignored(2, reason)])
    assert pairs.ignored[0].reason.encode(), "a reply can hold it"


def test_a_byte_order_mark_hides_no_object() -> None:
    assert read("\ufeff" + GOOD).accepted == [Example("q", ("p",))]


def test_an_empty_file_has_no_lines() -> None:
    assert read("") == Pairs([], [])
