"""The JSON files of a model folder; an unreadable or unsupported one raises one error type with the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from serve_app.domain.errors import ModelLoadError


def read_object(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON object in a file, or ``default`` if the file does not exist.

    Raises:
        ModelLoadError: The file is missing and has no default, is not JSON, or does not hold an object.
    """
    value = read_json(path, default)
    if not isinstance(value, dict):
        raise ModelLoadError(f"{path} cannot be read: it does not hold a JSON object")
    return value


def read_json(path: Path, default: Any = None) -> Any:
    """The content of a JSON file, or ``default`` if the file does not exist; see ``read_object``."""
    if default is not None and not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelLoadError(f"{path} is missing: {path.parent} is not a complete model folder") from None
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error


def write_json(path: Path, value: object) -> None:
    """Writes indented UTF-8 JSON with a newline at the end."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def not_served(path: Path, what: str, instead: str) -> NoReturn:
    """Raises ``ModelLoadError`` for a setting of a folder that the service cannot honour."""
    raise ModelLoadError(f"{path}: {what} is not served; {instead}")
