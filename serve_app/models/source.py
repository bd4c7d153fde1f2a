"""Where a model is: a folder below the models directory, or a repository on the model hub.

Free of torch, because the ingress asks too: it needs the tokenizer and the card, never the weights.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_app.domain.errors import ModelLoadError
from serve_app.domain.profiles import PROFILES, Capability, Pooling, Profile, resolve_profile

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99})?")
_CARD_FILES = ["*.json", "*/config.json"]
_WEIGHT_FILES = ["*.safetensors", "*.pt"]


@dataclass(frozen=True)
class ModelSource:
    """A model that was found: everything that is known before its weights are read.

    Attributes:
        name: The name it is served by.
        folder: An ordinary Hugging Face model folder on this machine.
        profile: Its family.
        pooling: From the folder (``1_Pooling/config.json``), else the family's.
        dimension: Length of the dense vector.
        max_tokens: Longest input, the smaller of the family's and the folder's limit.
    """

    name: str
    folder: Path
    profile: Profile
    pooling: Pooling
    dimension: int
    max_tokens: int

    def require(self, capability: Capability) -> None:
        """Raises ``ModelLoadError`` if the family does not have a capability that a setting asks for."""
        if capability in self.profile.capabilities:
            return
        able = ", ".join(p.family for p in PROFILES.values() if capability in p.capabilities)
        raise ModelLoadError(
            f"{self.name!r} is of the family {self.profile.family}, which has no {capability.value}; "
            f"these have: {able}. If the family was guessed wrongly, say it with `family:` beside the model's name"
        )


def is_model_name(name: str) -> bool:
    """Whether a name is a folder's or a hub id's, so that it can not lead out of the models directory."""
    return _NAME.fullmatch(name) is not None


def find_model(name: str, models_dir: Path, *, family: str | None = None, weights: bool = True) -> ModelSource:
    """Finds a model by name: the folder ``models_dir/name`` if it exists, else that name on the hub.

    Args:
        name: A folder name or a hub id such as ``intfloat/multilingual-e5-large``.
        models_dir: The folder that holds model folders.
        family: Overrides the manifest and the guess from the name.
        weights: Whether the weights are wanted; without them a hub model costs a few megabytes.

    Raises:
        ModelLoadError: No such model, an unknown family, or a folder with parts missing.
    """
    if not is_model_name(name):
        raise ModelLoadError(f"{name!r} is not a model name: use a folder name or a hub id like 'owner/name'")
    folder = models_dir / name
    if not folder.is_dir():
        resolve_profile(name, family)  # refuse an unknown family before anything is downloaded
        folder = _from_hub(name, models_dir, weights=weights)
    return describe(name, folder, family=family)


def describe(name: str, folder: Path, *, family: str | None = None) -> ModelSource:
    """Reads a model folder's own files: manifest, configuration, pooling, limits.

    Raises:
        ModelLoadError: A file is missing or unreadable; the message names it.
    """
    config = _read_json(folder / "config.json")
    if not isinstance(config.get("hidden_size"), int):
        raise ModelLoadError(f"{folder / 'config.json'} says no hidden_size: it is not the configuration of an encoder")
    if not (folder / "tokenizer.json").is_file():
        raise ModelLoadError(
            f"{folder} has no tokenizer.json; save it there with "
            f"`AutoTokenizer.from_pretrained(...).save_pretrained({str(folder)!r})`"
        )
    manifest = _read_json(folder / "manifest.json", default={})
    profile = resolve_profile(name, family or manifest.get("family"))
    sentence = _read_json(folder / "sentence_bert_config.json", default={})
    limits = [profile.max_tokens, sentence.get("max_seq_length"), _positions(config)]
    return ModelSource(
        name=name,
        folder=folder,
        profile=profile,
        pooling=_pooling(folder, profile),
        dimension=config["hidden_size"],
        max_tokens=min(int(limit) for limit in limits if limit),
    )


def _positions(config: dict[str, Any]) -> int | None:
    """Usable positions: XLM-RoBERTa keeps the ones up to its padding index for itself."""
    positions = config.get("max_position_embeddings")
    if positions and config.get("model_type") in {"xlm-roberta", "roberta"}:
        return int(positions) - int(config.get("pad_token_id") or 1) - 1
    return positions


def _pooling(folder: Path, profile: Profile) -> Pooling:
    config = _read_json(folder / "1_Pooling" / "config.json", default={})
    for flag, pooling in (("pooling_mode_cls_token", Pooling.CLS), ("pooling_mode_mean_tokens", Pooling.MEAN)):
        if config.get(flag):
            return pooling
    mode = config.get("pooling_mode")  # sentence-transformers 6 writes one word instead of flags
    if mode is not None:
        if mode not in list(Pooling):  # a list: a mode may be anything that JSON can say
            raise ModelLoadError(
                f"{folder / '1_Pooling/config.json'}: pooling {mode!r} is not served; mean and cls are"
            )
        return Pooling(mode)
    if config:
        raise ModelLoadError(f"{folder / '1_Pooling/config.json'}: its pooling is not served; mean and cls are")
    return profile.pooling


def _read_json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    if default is not None and not path.is_file():
        return default
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelLoadError(f"{path} is missing: {path.parent} is not a complete model folder") from None
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} can not be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelLoadError(f"{path} can not be read: it holds no JSON object")
    return value


def _from_hub(name: str, models_dir: Path, *, weights: bool) -> Path:
    """Downloads (or finds in the hub's cache) a model; safetensors rather than pickles.

    Repositories without safetensors fall back to ``pytorch_model.bin``, which torch reads with
    ``weights_only``; nothing from the hub is ever executed.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    place = (
        f"Put its folder at {models_dir / name} (config.json, tokenizer.json, model.safetensors), "
        f"or set MODELS_DIR to the folder that holds it."
    )
    try:
        folder = Path(snapshot_download(name, allow_patterns=_CARD_FILES + (_WEIGHT_FILES if weights else [])))
        if weights and not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=["*.bin", "*.bin.index.json"]))
    except RepositoryNotFoundError:
        raise ModelLoadError(f"no model {name!r} in {models_dir} and none on the model hub. {place}") from None
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelLoadError(
            f"no model {name!r} in {models_dir}, and the model hub can not be reached ({reason}). {place}"
        ) from error
    return folder
