"""The table of metrics in ``docs/operations.md``, read from the source: importing it would start Ray's exporter."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tools.json_schema import cell, table

SOURCE = Path(__file__).resolve().parents[1] / "serve_app" / "deployments" / "metrics.py"
_SUFFIXES = {"Counter": "_total", "Gauge": "", "Histogram": ""}


def metrics_table() -> str:
    """Name, kind, labels and meaning of each metric, as Prometheus sees them."""
    head = ["metric", "kind", "labels", "meaning"]
    return table(head, sorted(_rows(ast.parse(SOURCE.read_text(encoding="utf-8")))))


def _rows(tree: ast.Module) -> Iterator[list[str]]:
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _SUFFIXES:
            name, meaning, *rest = [_strings(part) for part in call.args]
            labels = ", ".join(f"`{label}`" for part in rest for label in part)
            kind = call.func.id
            yield [f"`ray_{name[0]}{_SUFFIXES[kind]}`", kind.lower(), labels, cell(meaning[0])]


def _strings(node: ast.expr) -> list[str]:
    values = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
    return [value for value in values if isinstance(value, str)]
