"""The fine-tunes on disk: a folder with a manifest that names its base is served by its name, without a restart.

Folders are read at each request, so a new fine-tune is found at once. A result appears by renaming its finished folder,
so no reader sees a part of it.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path

from serve_app.domain.embeddings import ModelVersion
from serve_app.domain.errors import ModelLoadError, ModelNotFoundError
from serve_app.domain.files import PRIVATE_FOLDER, remove
from serve_app.domain.manifest import Manifest
from serve_app.domain.model_names import shown
from serve_app.domain.model_uses import ModelUses
from serve_app.models.model_source import is_model_name

_TRASH = ".trash"


@dataclass(frozen=True)
class FineTune:
    """A fine-tune on disk.

    Attributes:
        model_version: Its name and version, which distinguishes it from an earlier one of the same name.
        base: Name of the model that was tuned.
        family: Of both.
        kind: ``full``, ``lora`` or ``qlora``.
        adapter: Whether the folder holds an adapter for the base instead of a whole model.
        folder: Where it is.
        manifest: The whole description.
    """

    model_version: ModelVersion
    base: str
    family: str
    kind: str
    adapter: bool
    folder: Path
    manifest: Manifest = field(compare=False)

    @property
    def name(self) -> str:
        """The name it is served by."""
        return self.model_version.name


def find_fine_tune(name: str, models_dir: Path) -> FineTune | None:
    """The fine-tune of this name; None if it does not exist or its manifest cannot be read."""
    folder = models_dir / name
    if not is_model_name(name):
        return None
    try:
        manifest = Manifest.read(folder)
    except ModelLoadError:
        return None
    if not (manifest.job_id and manifest.base and manifest.family and manifest.kind) or manifest.adapter is None:
        return None  # a starter model, or a folder from elsewhere
    return FineTune(
        model_version=ModelVersion(name, str(manifest.job_id)),
        base=str(manifest.base),
        family=manifest.family,
        kind=str(manifest.kind),
        adapter=bool(manifest.adapter),
        folder=folder,
        manifest=manifest,
    )


def fine_tunes(models_dir: Path) -> list[FineTune]:
    """All fine-tunes, by name."""
    try:
        names = sorted(entry.name for entry in os.scandir(models_dir) if not entry.name.startswith("."))
    except OSError:
        return []
    return [found for name in names if (found := find_fine_tune(name, models_dir)) is not None]


def delete_fine_tune(name: str, models_dir: Path, uses: ModelUses | None = None) -> None:
    """Deletes a fine-tune; its name is free at once, and no reader sees a part of its folder.

    Args:
        name: Its name.
        models_dir: Folder of the models.
        uses: What else may need it, beside the fine-tunes in the folder.

    Raises:
        ModelNotFoundError: No fine-tune has this name.
        ConflictError: It is in use, see ``ModelUses``.
    """
    uses = uses or ModelUses()
    uses.require_unused(name)
    found = find_fine_tune(name, models_dir)
    missing = ModelNotFoundError(f"no fine-tune {shown(name)} is here; GET /models lists those that are")
    if found is None:
        raise missing
    if children := [other.name for other in fine_tunes(models_dir) if other.base == name]:
        replace(uses, fine_tunes={name: children}).require_unused(name)
    trash = models_dir / _TRASH
    if trash.is_symlink():  # what it leads to is not ours to empty
        trash.unlink()
    trash.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    doomed = trash / uuid.uuid4().hex
    try:
        found.folder.rename(doomed)
    except FileNotFoundError:  # another process was faster
        raise missing from None
    for folder in trash.iterdir():  # this one, and those that a killed process has left
        remove(folder)
