r"""Training examples from what a client sends: ``query<TAB>passage`` lines, or a list of examples.

A line that is not a pair is left out and reported with its number, so that one bad line in a million does not cost the
other 999,999, and nothing is left out without a word. Texts are kept exactly as they came: no stripping, no
normalisation, but for the byte order mark of a file; lines end with ``\n`` or ``\r\n`` and with nothing else, so that
a U+2028 stays inside its text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from serve_app.domain.unicode import fold, is_unicode
from serve_app.jobs.pair_faults import (
    BROKEN_TEXT,
    CONTRADICTION,
    EMPTY_SIDE,
    HEADER,
    NO_POSITIVE,
    NUL,
    TOO_LONG,
    is_header,
    not_a_pair,
)

_BYTE_ORDER_MARK = "\ufeff"  # of the file, not of its first text


class Example(NamedTuple):
    """A query with what answers it; a tuple, because there may be a million.

    Attributes:
        query: Not blank.
        positives: Passages that answer it, at least one, none blank.
        negatives: Passages that do not; often none, since the other passages of a batch are negatives as well.
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One line of ``pairs.jsonl``, without the line's end."""
        return json.dumps({"query": self.query, "pos": self.positives, "neg": self.negatives}, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Example:
        """Reads a line of ``pairs.jsonl``; ``neg`` may be missing.

        Raises:
            ValueError: It is not JSON.
            KeyError, TypeError: It is not an example.
        """
        value = json.loads(line)
        return cls(value["query"], tuple(value["pos"]), tuple(value.get("neg") or ()))


class Ignored(NamedTuple):
    """A line that was left out: its number (or the position in the list), from 1, and the reason."""

    line: int
    reason: str


@dataclass(frozen=True)
class Pairs:
    """The accepted and the ignored lines of the client's data; together that is every line.

    Attributes:
        accepted: In order of appearance, all different.
        ignored: In order of appearance.
    """

    accepted: Sequence[Example]
    ignored: Sequence[Ignored]

    @property
    def has_in_batch_negatives(self) -> bool:
        """True if a batch can hold negatives: neither all queries nor all lists of passages are the same.

        Negatives that examples bring along do not count.
        Spellings that differ in case, white space or Unicode form alone are one text.
        """
        if not self.accepted:
            return False
        query, passages = _folded(self.accepted[0])
        return any(_folded(example)[0] != query for example in self.accepted) and any(
            _folded(example)[1] != passages for example in self.accepted
        )


def parse_lines(text: str, *, max_text_chars: int) -> Pairs:
    r"""Reads ``query<TAB>passage`` lines.

    Args:
        text: Lines that end with ``\n`` or ``\r\n``; the end of the last one may be missing.
        max_text_chars: A query or passage with more characters than this is left out.
    """
    lines = text.removeprefix(_BYTE_ORDER_MARK).split("\n")
    if not lines[-1]:
        lines.pop()
    clean = is_unicode(text) and "\0" not in text  # asked once: it nearly always is
    accepted: list[Example] = []
    ignored: list[Ignored] = []
    numbers: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if line.endswith("\r"):
            line = line[:-1]
        sides = line.split("\t")
        if len(sides) != 2:
            ignored.append(Ignored(number, not_a_pair(line, sides)))
        elif number == 1 and is_header(sides):
            ignored.append(Ignored(number, HEADER))
        elif reason := _text_fault(sides, max_text_chars, clean=clean):
            ignored.append(Ignored(number, reason))
        elif (first := numbers.setdefault(line, number)) != number:
            ignored.append(Ignored(number, f"the same pair as in line {first}"))
        else:
            accepted.append(Example(sides[0], (sides[1],)))
    return Pairs(accepted, ignored)


def parse_examples(examples: Iterable[Mapping[str, Any]], *, max_text_chars: int) -> Pairs:
    """Reads examples of the form ``{"query": str, "pos": [str], "neg": [str]}``; ``neg`` may be missing.

    Args:
        examples: Their types were checked.
        max_text_chars: An example with a longer text is left out.
    """
    return gather(map(example_of, examples), max_text_chars=max_text_chars)


def example_of(given: Mapping[str, Any]) -> Example:
    """The example of an object whose types were checked; each passage once."""
    return Example(given["query"], _distinct(given["pos"]), _distinct(given.get("neg", ())))


def gather(found: Iterable[Example | str], *, max_text_chars: int) -> Pairs:
    """Separates usable examples from the others.

    Args:
        found: Examples, and reasons in place of those that cannot be read.
        max_text_chars: An example with a longer text is left out.
    """
    accepted: list[Example] = []
    ignored: list[Ignored] = []
    numbers: dict[Example, int] = {}
    for number, example in enumerate(found, start=1):
        if isinstance(example, str):
            ignored.append(Ignored(number, example))
        elif reason := _example_fault(example, max_text_chars):
            ignored.append(Ignored(number, reason))
        elif (first := numbers.setdefault(example, number)) != number:
            ignored.append(Ignored(number, f"the same example as number {first}"))
        else:
            accepted.append(example)
    return Pairs(accepted, ignored)


def _example_fault(example: Example, max_text_chars: int) -> str | None:
    if not example.positives:
        return NO_POSITIVE
    if example.negatives and not set(map(fold, example.positives)).isdisjoint(map(fold, example.negatives)):
        return CONTRADICTION
    return _text_fault((example.query, *example.positives, *example.negatives), max_text_chars, clean=False)


def _text_fault(texts: Sequence[str], max_text_chars: int, *, clean: bool) -> str | None:
    for text in texts:
        if not text or text.isspace():
            return EMPTY_SIDE
        if len(text) > max_text_chars:
            return TOO_LONG
        if not clean and not is_unicode(text):
            return BROKEN_TEXT
        if not clean and "\0" in text:
            return NUL
    return None


def _folded(example: Example) -> tuple[str, tuple[str, ...]]:
    return fold(example.query), tuple(map(fold, example.positives))


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
