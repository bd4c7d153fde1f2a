"""The tables of ``docs/configuration.md``: every setting with its type, default and meaning, from the code itself."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from serve_app.settings.environment import ENVIRONMENT
from serve_app.settings.service_settings import Settings
from tools.json_schema import Schema, cell, default_of, resolve, table, type_of

ROOT = Path(__file__).resolve().parents[1]
_HEAD = ["setting", "type", "default", "meaning"]
_TITLES = {"ModelSettings": "models[]"}  # of groups whose settings others share
_REPEATED = ("group", "list of groups")
_ENTRY = re.compile(r"^(\w+): ", re.MULTILINE)


def attributes(cls: type) -> dict[str, str]:
    """Description of each attribute in the docstrings of a class and its bases."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        _, _, section = (base.__dict__.get("__doc__") or "").partition("Attributes:\n")
        parts = _ENTRY.split(textwrap.dedent(section))
        found.update({name: cell(text) for name, text in zip(parts[1::2], parts[2::2], strict=True)})
    return found


def settings_tables() -> str:
    """One section for each group of settings, the application's arguments first."""
    schema = Settings.model_json_schema()
    classes = dict(_classes(Settings))
    written: set[str] = set()
    return "\n\n".join(_sections("", schema, Settings, classes, schema.get("$defs", {}), written))


def environment_table() -> str:
    """The variables that override settings."""
    rows = [[f"`{name}`", f"`{_as_path(path)}`"] for name, path in ENVIRONMENT.items()]
    return table(["variable", "setting that it overrides"], rows)


def serve_environment_table() -> str:
    """The variables of ``configs/serve.env`` with the comments above them."""
    rows, comment, value_continues = [], list[str](), False
    for line in (ROOT / "configs" / "serve.env").read_text(encoding="utf-8").splitlines():
        if value_continues:
            value_continues = '"' not in line
        elif line.startswith("#"):
            comment.append(line.lstrip("# "))
        elif not line:
            comment.clear()
        else:
            name, _, value = line.partition("=")
            value_continues = value.count('"') == 1
            shown = value.strip('"') + (" …" if value_continues else "")
            rows.append([f"`{name}`", f"`{shown}`", cell(" ".join(comment)) or "as above"])
            comment = []
    return table(["variable", "value", "what it does"], rows)


def _classes(cls: type) -> Iterator[tuple[str, type]]:
    yield cls.__name__, cls
    for annotation in _annotations(cls):
        for part in [annotation, *get_args(annotation)]:
            if isinstance(part, type) and (issubclass(part, BaseModel) or dataclasses.is_dataclass(part)):
                yield from _classes(part)


def _annotations(cls: type) -> list[Any]:
    return [field.annotation for field in cls.model_fields.values()] if issubclass(cls, BaseModel) else []


def _sections(
    path: str, schema: Schema, cls: type, classes: Mapping[str, type], definitions: Mapping[str, Schema],
    written: set[str],
) -> Iterator[str]:  # fmt: skip
    meanings = attributes(cls)
    rows, below = [], list[tuple[str, str]]()
    parent = _written_parent(cls, written)
    inherited = _rows_of(classes[parent], definitions) if parent else {}
    for name, field in schema["properties"].items():
        inner, suffix = _group(field, definitions)
        target = f"{path}{name}{suffix}"
        if inner is not None:
            below.append((target, inner))
            again = inner in written
            rows.append([f"`{name}`", _kind(suffix, inner, target, again=again), "", meanings.get(name, "")])
        else:
            rows.append(_row(name, field, meanings, definitions))
    rows = [row for row in rows if row not in inherited.values() and row[1] not in _REPEATED]
    title = path.rstrip(".") or "Application arguments"
    intro = _intro(cls) + (f" It takes what `{_TITLES[parent]}` takes; what differs is:" if parent else "")
    yield f"### {'`' + title + '`' if path else title}\n\n{intro}\n\n{table(_HEAD, rows)}"
    for target, inner in below:
        if inner not in written:
            written.add(inner)
            yield from _sections(f"{target}.", resolve({"$ref": inner}, definitions), classes[inner], classes,
                                 definitions, written)  # fmt: skip


def _row(name: str, field: Schema, meanings: Mapping[str, str], definitions: Mapping[str, Schema]) -> list[str]:
    return [f"`{name}`", cell(type_of(field, definitions)), default_of(field), meanings.get(name, "")]


def _rows_of(cls: Any, definitions: Mapping[str, Schema]) -> dict[str, list[str]]:
    meanings = attributes(cls)
    return {
        name: _row(name, field, meanings, definitions)
        for name, field in definitions[cls.__name__]["properties"].items()
    }


def _written_parent(cls: type, written: set[str]) -> str | None:
    """A class that has its section already and shares settings with this one."""
    return next((name for name in _TITLES if name in written and name != cls.__name__ and _shares(cls, name)), None)


def _shares(cls: type, name: str) -> bool:
    return any(base.__name__ in {name, "DeploymentSettings"} for base in cls.__mro__)


def _intro(cls: type) -> str:
    return cell((cls.__doc__ or "").split("\n\n")[0].split("Attributes:")[0])


def _kind(suffix: str, inner: str, target: str, *, again: bool) -> str:
    words = "list of groups" if suffix else "group"
    return words if again else f"{words}, [below](#{anchor(target)})"


def _group(field: Schema, definitions: Mapping[str, Schema]) -> tuple[str | None, str]:
    """The class of a field that is a group of settings, and ``[]`` if it is a list of them."""
    candidates = [field, *field.get("allOf", ())]
    for candidate in candidates:
        if "$ref" in candidate:
            return candidate["$ref"].rsplit("/", 1)[-1], ""
        if "$ref" in candidate.get("items", {}):
            return candidate["items"]["$ref"].rsplit("/", 1)[-1], "[]"
    return None, ""


def anchor(title: str) -> str:
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _as_path(path: str) -> str:
    return path.replace(".0.", "[0].")
