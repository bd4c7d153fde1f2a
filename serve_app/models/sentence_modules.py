"""``modules.json`` and the pooling it names: from token states to a vector, as sentence-transformers reads it.

Sources: ``base.model``, ``base.modules.normalize`` and ``sentence_transformer.modules.pooling`` of version 6.2. The
flags of older versions are read, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serve_app.domain.errors import ModelLoadError
from serve_app.domain.folder_json import not_served, read_json, read_object
from serve_app.domain.profiles import Pooling

_FILE = "modules.json"
ENCODER = ("Transformer", "Pooling", "Normalize")
CROSS_ENCODER = ("Transformer",)
_FLAG = "pooling_mode_"
_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_POOLING_KEYS = {"word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt", *_MODES}
_SENTENCE = "sentence_embedding"


def has_pooling(folder: Path) -> bool:
    """True if ``modules.json`` lists a pooling, as that of an embedding model does."""
    modules = read_json(folder / _FILE, [])
    return isinstance(modules, list) and any(_kind(module) == "Pooling" for module in modules)


def read_pooling(folder: Path, hidden_size: int) -> Pooling | None:
    """The folder's pooling; None if the folder does not name one.

    Raises:
        ModelLoadError: The folder lists a module, a pooling or a setting of one that is not served.
    """
    if not (folder / _FILE).is_file():
        _check_unlisted_modules(folder)
        return _pooling_of(folder / "1_Pooling" / "config.json", hidden_size)
    _, pooling, normalize = _paths(folder, ENCODER)
    _check_normalize(folder / normalize / "config.json")
    path = folder / pooling / "config.json"
    if not path.is_file():
        raise ModelLoadError(f"{path} is missing, and {_FILE} names it; copy it from the model")
    return _pooling_of(path, hidden_size)


def check_modules(folder: Path) -> None:
    """Raises ``ModelLoadError`` if a cross-encoder's ``modules.json`` lists anything but the transformer."""
    if (folder / _FILE).is_file():
        _paths(folder, CROSS_ENCODER)


def _paths(folder: Path, expected: Sequence[str]) -> list[str]:
    """The subfolder of each expected module."""
    path = folder / _FILE
    modules = read_json(path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelLoadError(f"{path} cannot be read: it does not hold a list of modules")
    for module in modules:
        if _kind(module) not in expected:
            not_served(path, f"the module {module.get('type')!r}", f"served are: {', '.join(expected)}")
    kinds = [_kind(module) for module in modules]
    if "Normalize" in expected and "Normalize" not in kinds:
        not_served(path, "a model without Normalize", "add sentence_transformers.models.Normalize as the last module")
    if kinds != [*expected]:
        not_served(path, f"the sequence {', '.join(map(str, kinds))}", f"served is: {', '.join(expected)}")
    paths = [str(module.get("path", "")) for module in modules]
    if paths[0] not in ("", "."):
        not_served(path, f"a transformer in the subfolder {paths[0]!r}", "move its files into the model's folder")
    if any(Path(part).is_absolute() or ".." in Path(part).parts for part in paths):
        not_served(path, "a module outside of the folder", "copy it into the folder")
    return paths


def _kind(module: Any) -> str | None:
    """``Pooling`` of ``sentence_transformers.models.Pooling``; None for a class of another library."""
    kind = module.get("type") if isinstance(module, dict) else None
    if not isinstance(kind, str) or not kind.startswith("sentence_transformers."):
        return None
    return kind.rpartition(".")[2]


def _check_unlisted_modules(folder: Path) -> None:
    """A folder without ``modules.json`` may have the pooling in ``1_Pooling``, and no other module."""
    for path in sorted(folder.glob("*/config.json")):
        name = path.parent.name
        if name in ("1_Pooling", "2_Normalize"):
            continue
        if "pooling" in name.lower() or name.partition("_")[0].isdigit():
            raise ModelLoadError(f"{path} belongs to a module, but {folder / _FILE} is missing; copy it from the model")


def _check_normalize(path: Path) -> None:
    config = read_object(path, {})
    for key in ("module_input_name", "module_output_name"):
        if config.get(key, _SENTENCE) not in (_SENTENCE, None):
            not_served(path, f"{key} {config[key]!r}", f"served is: {_SENTENCE}")


def _pooling_of(path: Path, hidden_size: int) -> Pooling | None:
    config = read_object(path, {})
    if not config:
        return None
    if unknown := sorted(set(config) - _POOLING_KEYS):
        not_served(path, f"the setting {unknown[0]!r}", f"known are: {', '.join(sorted(_POOLING_KEYS))}")
    if config.get("include_prompt", True) is not True:
        not_served(path, "include_prompt: false", "include_prompt: true is")
    dimension = config.get("embedding_dimension", config.get("word_embedding_dimension", hidden_size))
    if dimension != hidden_size:
        not_served(path, f"a pooling of {dimension!r} numbers", f"config.json has hidden_size: {hidden_size}")
    mode = config.get("pooling_mode", [mode for flag, mode in _MODES.items() if config.get(flag)])
    if isinstance(mode, list) and len(mode) == 1:
        mode = mode[0]
    if mode not in [*Pooling]:  # a list: a mode may be any JSON value
        words = " + ".join(map(str, mode)) if isinstance(mode, list) else mode
        not_served(path, f"pooling {words!r}" if words else "a pooling without a mode", "mean and cls are")
    return Pooling(mode)
