"""Writes the generated parts of ``docs/``: ``python -m tools.generate_docs``, or ``make docs``.

A page marks each generated part with two comments, ``<!-- generated: NAME -->`` and ``<!-- end of NAME -->``; the text
between them comes from the code, everything else is written by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from tools import api_reference, metrics_reference, settings_reference

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
_PART = re.compile(r"(<!-- generated: (?P<name>[\w -]+) -->\n).*?(<!-- end of (?P=name) -->)", re.DOTALL)

PARTS: Mapping[str, Callable[[], str]] = {
    "settings": settings_reference.settings_tables,
    "environment": settings_reference.environment_table,
    "serve environment": settings_reference.serve_environment_table,
    "error codes": api_reference.codes_table,
    "metrics": metrics_reference.metrics_table,
    **{f"{page} routes": partial(api_reference.routes_table, page) for page in api_reference.PAGES},
    **{f"{page} fields": partial(api_reference.fields_tables, page) for page in api_reference.PAGES},
}


def generated(text: str) -> str:
    """A page with its generated parts as the code has them now.

    Raises:
        KeyError: A marked part has no generator.
    """
    return _PART.sub(lambda match: f"{match[1]}\n{PARTS[match['name']]()}\n\n{match[3]}", text)


def pages() -> Iterator[tuple[Path, str, str]]:
    """Each page with generated parts: its path, its text, and the text that it should have."""
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if _PART.search(text):
            yield path, text, generated(text)


def main() -> int:
    """Rewrites the pages that differ and names them."""
    for path, text, wanted in pages():
        if text != wanted:
            path.write_text(wanted, encoding="utf-8")
            print(f"written: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
