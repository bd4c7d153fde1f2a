"""Training pairs from the documentation of Python's own library: ``python examples/python_docs.py > pairs.tsv``.

A pair is the first sentence of a docstring and what follows it, with a tab between them. Nothing is downloaded, and
every Python has about the same pairs; they are data to try a fine-tune with, not a benchmark.
"""

from __future__ import annotations

import ast
import random
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

_SENTENCES = re.compile(r"(?P<first>.{20,120}?\.)\s+(?P<rest>.{60,})")
_WORDS = 40  # of a passage
_COUNT = 600


def docstrings() -> Iterator[str]:
    """The docstrings of the library's modules, classes and functions, each on one line."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted([*library.glob("*.py"), *library.glob("[a-z]*/*.py")]):
        if {"test", "idlelib", "lib2to3", "site-packages", "turtledemo"} & set(path.parts):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                yield " ".join(text.split())


def pairs() -> list[tuple[str, str]]:
    """Query and passage of each docstring with several sentences; no query and no passage comes twice."""
    found: dict[str, str] = {}
    for text in docstrings():
        if match := _SENTENCES.match(text):
            found.setdefault(match["first"], " ".join(match["rest"].split()[:_WORDS]))
    by_passage = {passage: query for query, passage in found.items()}
    drawn = [(query, passage) for passage, query in by_passage.items()]
    random.Random(0).shuffle(drawn)
    return drawn


if __name__ == "__main__":
    sys.stdout.writelines(f"{query}\t{passage}\n" for query, passage in pairs()[:_COUNT])
