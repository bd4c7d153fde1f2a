"""The kind of a model folder: an encoder, a reranker, or an adapter of another model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serve_app.domain.errors import ModelLoadError
from serve_app.domain.folder_json import not_served, read_object
from serve_app.models.sentence_modules import has_pooling
from serve_app.models.sentence_settings import read_model_type

_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


def check_adapters(folder: Path) -> None:
    """Raises ``ModelLoadError`` for adapter files, which transformers would silently apply to whole weights."""
    found = next((folder / name for name in _ADAPTER_FILES if (folder / name).is_file()), None)
    if found is None:
        return
    if (folder / "config.json").is_file():
        raise ModelLoadError(
            f"{found} is part of an adapter and lies beside a whole model; remove the adapter's files "
            f"({', '.join(_ADAPTER_FILES)}), or merge it (peft's merge_and_unload) and save the result"
        )
    base = read_object(folder / "adapter_config.json", {}).get("base_model_name_or_path")
    raise ModelLoadError(
        f"{found} is part of an adapter, not of a whole model; configure its base {base!r}: the service finds its "
        f"own fine-tunes by their names. An adapter from elsewhere must be merged first (peft's merge_and_unload)"
    )


def check_saved_by(folder: Path) -> None:
    """Raises ``ModelLoadError`` if sentence-transformers saved the folder as neither encoder nor cross-encoder."""
    saved_by = read_model_type(folder)
    if saved_by not in (None, "SentenceTransformer", "CrossEncoder"):
        path = folder / "config_sentence_transformers.json"
        not_served(path, f"model_type {saved_by!r}", "SentenceTransformer and CrossEncoder are")


def is_reranker(folder: Path, config: Mapping[str, Any]) -> bool | None:
    """True if the folder describes itself as a cross-encoder, None if it does not describe itself.

    Args:
        folder: A model folder.
        config: Its ``config.json``.
    """
    saved_by = read_model_type(folder)
    classes = _classes(config)
    if saved_by is None and not classes:
        return None
    classifies = any(name.endswith("ForSequenceClassification") for name in classes)
    return saved_by == "CrossEncoder" or (classifies and not has_pooling(folder))


def require_encoder(name: str, folder: Path, config: Mapping[str, Any]) -> None:
    """Raises ``ModelLoadError`` for a reranker that is configured as an encoder."""
    if is_reranker(folder, config):
        raise ModelLoadError(
            f"{folder}{_named(config)} is a reranker (a cross-encoder), which has no vectors; configure {name!r} under "
            f"`rerankers:` with `kind: cross-encoder`, not under `models:`, as MODEL_NAME or with the family of an "
            f"encoder"
        )


def require_reranker(name: str, folder: Path, config: Mapping[str, Any]) -> None:
    """Raises ``ModelLoadError`` for an encoder that is configured as a cross-encoder."""
    if is_reranker(folder, config) is False:
        raise ModelLoadError(
            f"{folder}{_named(config)} is an encoder, not a cross-encoder; configure {name!r} under `models:`, or, if "
            f"it is a BGE-M3, under `rerankers:` with `kind: colbert`"
        )


def _classes(config: Mapping[str, Any]) -> list[str]:
    classes = config.get("architectures")
    return [str(name) for name in classes] if isinstance(classes, list) else []


def _named(config: Mapping[str, Any]) -> str:
    classes = _classes(config)
    return f" ({', '.join(classes)})" if classes else ""
