"""The pages of the documentation, taken apart: code blocks, the examples in them, tables, links and anchors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.service_process import ROOT

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^\$ ", re.MULTILINE)
_FIRST_LINES = re.compile(r"(?:[^\n]*\\\n)*[^\n]*\n?")  # a backslash at its end continues a line
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_GENERATED = re.compile(r"<!-- generated: .*?<!-- end of [\w -]+ -->", re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)|<(?!https?:)([\w./#-]+\.md[\w#-]*)>")


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        page: Path from the project's root.
        language: The first word behind the fence.
        flags: The other words.
        code: What is between the fences.
    """

    page: str
    language: str
    flags: frozenset[str]
    code: str


@dataclass(frozen=True)
class Command:
    """A command of a ``console`` block, and what the page says that it prints.

    Attributes:
        page: Path from the project's root.
        command: Without the prompt.
        printed: The lines below it.
        is_long: Whether it takes minutes.
    """

    page: str
    command: str
    printed: str
    is_long: bool


def name_of(path: Path) -> str:
    """A page's path from the project's root."""
    return path.relative_to(ROOT).as_posix()


def blocks(language: str) -> Iterator[Block]:
    """The blocks of a language on all pages, the README's first."""
    for path in PAGES:
        for match in _BLOCK.finditer(path.read_text(encoding="utf-8")):
            first, *flags = match["info"].split() or [""]
            if first == language:
                yield Block(name_of(path), first, frozenset(flags), match["code"])


def commands() -> Iterator[Command]:
    """Every command of every page, in their order."""
    for block in blocks("console"):
        for part in _COMMAND.split(block.code):
            if part:
                command = _FIRST_LINES.match(part)[0]  # type: ignore[index]
                yield Command(block.page, command.rstrip("\n"), part[len(command) :], "long" in block.flags)


def prose(text: str) -> str:
    """A page without its blocks of code, its code in backticks and its generated parts."""
    for pattern in (_GENERATED, _BLOCK, _CODE):
        text = pattern.sub("", text)
    return text


def links(path: Path) -> list[str]:
    """The relative links of a page."""
    return [one or other for one, other in _LINK.findall(_BLOCK.sub("", path.read_text(encoding="utf-8")))]


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in _HEADING.findall(_BLOCK.sub("", path.read_text(encoding="utf-8"))):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        numbered = (f"{anchor}-{i}" for i in range(1, 100))
        found.add(anchor if anchor not in found else next(name for name in numbered if name not in found))
    return found


def table_rows(path: Path) -> dict[str, list[str]]:
    """The cells of every row of every table on a page by the first cell, both without emphasis."""
    rows = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("|") and line.endswith("|"):
            first, *others = (cell.strip().replace("*", "") for cell in line[1:-1].split("|"))
            rows.setdefault(first, others)
    return rows
