"""Files that survive a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def flush(folder: Path) -> None:
    """Writes the files of a folder to disk; call it before a rename or a marker declares them complete."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
