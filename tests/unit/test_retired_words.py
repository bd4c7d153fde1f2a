"""Retired words: names and phrases that docs/architecture.md's glossary replaces do not return."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

NAMES = re.compile(
    r"[Dd]oors?|Doorkeeper|Guard|Hosts|Origins|FineTuneOrder|order_of|proven|telling_why|under_their_names|Catalogue|"
    r"ModelBank|_bank|_bring|Passenger|passengers?|[Rr]ides?|[Ss]eats?|_board|in_turns|look_ups?|piecewise|PIECE_TOKENS|"
    r"Ledger|ledger|Supervision|_bury|stray|strays|deaf_to|job_law|job_effects|job_losses|Patience|fruitless|"
    r"heard_at|JobNote|diary|rivals|NoRivals|_strangers?|obstacles?|speaks|SavesInTime|own_places|_paid|heaviest|"
    r"Hidden|problems?|says|told|(_?(prove|refuse|tell)_\w+)"
)
PHRASES = re.compile(
    r"\b(can not|whoever|somebody|nobody|anybody|everybody|of which|(is|are|was|were) told|there is none|"
    r"looked at|taken for dead|blown up|signs of life|of its own accord|goes on until)\b",
    re.IGNORECASE,
)
TOPS = ("serve_app", "training", "tools")
SOURCES = sorted(path.relative_to(ROOT) for top in TOPS for path in (ROOT / top).rglob("*.py"))
PAGES = sorted(path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))


def retired(path: Path, source: str) -> Iterator[str]:
    """Each retired name or phrase with its line."""
    if path.suffix != ".py":
        yield from (f"{source[: m.start()].count(chr(10)) + 1}: {m[0]}" for m in PHRASES.finditer(source))
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and NAMES.fullmatch(token.string):
            yield f"{token.start[0]}: {token.string}"
        elif token.type in (tokenize.STRING, tokenize.COMMENT):
            text = re.sub(r"\s+", " ", token.string)
            yield from (f"{token.start[0]}: {match[0]}" for match in PHRASES.finditer(text))


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=str)
def test_retired_words_do_not_return(path: Path) -> None:
    assert list(retired(path, (ROOT / path).read_text(encoding="utf-8"))) == []


def test_a_retired_word_is_found() -> None:
    source = 'def refuse_all(door):\n    """It can\n    not be read."""\n    problems = 1  # nobody knows\n'
    assert list(retired(Path("x.py"), source)) == ["1: refuse_all", "1: door", "2: can not", "4: problems", "4: nobody"]
    assert list(retired(Path("x.md"), "Two,\nof which one")) == ["2: of which"]
