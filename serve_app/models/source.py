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
from serve_app.models.architecture import check_architecture, usable_positions
from serve_app.models.folder_json import not_served, read_object
from serve_app.models.sentence_modules import check_modules, has_pooling, read_pooling
from serve_app.models.sentence_settings import (
    check_cross_encoder_settings,
    check_encoder_settings,
    check_transformer_settings,
    read_max_tokens,
    read_model_type,
    read_prompts,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99})?")
_CARD_FILES = ["*.json", "*/config.json"]
_WEIGHT_FILES = ["*.safetensors", "*.pt"]
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class ModelSource:
    """A model that was found: everything that is known before its weights are read.

    Attributes:
        name: The name it is served by.
        folder: An ordinary Hugging Face model folder on this machine.
        profile: Its family.
        pooling: From the folder (the pooling that ``modules.json`` names), else the family's.
        dimension: Length of the dense vector.
        max_tokens: Longest input: the folder's limit, else the family's, but no more than the model has positions.
        rows: Of the embedding table; every token id is below it. None where the folder does not say.
    """

    name: str
    folder: Path
    profile: Profile
    pooling: Pooling
    dimension: int
    max_tokens: int
    rows: int | None = None

    def require(self, capability: Capability) -> None:
        """Raises ``ModelLoadError`` if the family does not have a capability that a setting asks for."""
        has = self.profile.capabilities
        if capability in has:
            return
        if Capability.PAIR_SCORE in has or capability is Capability.PAIR_SCORE:
            where = "`models:`" if Capability.DENSE in has else "`rerankers:` with `kind: cross-encoder`"
            if Capability.COLBERT in has:
                where += ", or under `rerankers:` with `kind: colbert`"
            what = "a reranker (a cross-encoder)" if Capability.PAIR_SCORE in has else "an encoder, not a cross-encoder"
            raise ModelLoadError(
                f"{self.name!r} is of the family {self.profile.family}, which is {what}; configure it under {where}"
            )
        able = ", ".join(p.family for p in PROFILES.values() if capability in p.capabilities)
        raise ModelLoadError(
            f"{self.name!r} is of the family {self.profile.family}, which has no {capability.value}; "
            f"these have: {able}. If the family was guessed wrongly, say it with `family:` beside the model's name "
            f"(or MODEL_FAMILY)"
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
        raise ModelLoadError(f"{name!r} is not a model name: {_instead_of(name)}")
    folder = models_dir / name
    if not folder.is_dir():
        resolve_profile(name, family)  # refuse an unknown family before anything is downloaded
        folder = _from_hub(name, models_dir, weights=weights)
    return describe(name, folder, family=family)


def describe(name: str, folder: Path, *, family: str | None = None) -> ModelSource:
    """Reads a model folder's own files: manifest, configuration, modules, prompts, limits.

    Whatever the folder says is honoured as sentence-transformers does, or refused.

    Raises:
        ModelLoadError: A file is missing, unreadable, or asks for what is not served; the message names it.
    """
    _check_adapters(folder)
    saved_by = read_model_type(folder)
    if saved_by not in (None, "SentenceTransformer", "CrossEncoder"):
        path = folder / "config_sentence_transformers.json"
        not_served(path, f"model_type {saved_by!r}", "SentenceTransformer and CrossEncoder are")
    config = read_object(folder / "config.json")
    manifest = _manifest(folder)
    profile = resolve_profile(name, family or manifest.get("family"))
    is_cross_encoder = Capability.PAIR_SCORE in profile.capabilities
    _check_kind(name, folder, config, is_cross_encoder=is_cross_encoder)
    width = check_architecture(folder / "config.json", config, is_cross_encoder=is_cross_encoder)
    if not (folder / "tokenizer.json").is_file():
        raise ModelLoadError(
            f"{folder} has no tokenizer.json; save it there with "
            f"`AutoTokenizer.from_pretrained(...).save_pretrained({str(folder)!r})`"
        )
    check_transformer_settings(folder, cross_encoder=is_cross_encoder)
    if is_cross_encoder:
        check_modules(folder)
        check_cross_encoder_settings(folder, config)
        pooling = profile.pooling
    else:
        check_encoder_settings(folder, width)
        pooling = read_pooling(folder, width) or profile.pooling
        _check_prompts(folder, profile)
    rows = config.get("vocab_size")
    return ModelSource(
        name=name,
        folder=folder,
        profile=profile,
        pooling=pooling,
        dimension=width,
        max_tokens=min(
            limit for limit in (read_max_tokens(folder) or profile.max_tokens, usable_positions(config)) if limit
        ),
        rows=rows if isinstance(rows, int) else None,
    )


def _instead_of(name: str) -> str:
    """What to write for something that is no name, a path above all."""
    path = Path(name).expanduser()
    if path.name and is_model_name(path.name) and ("/" in name or name.startswith("~")):
        return (
            f"it is a path; set MODELS_DIR (or `models_dir:`) to {str(path.absolute().parent)!r} and MODEL_NAME (or "
            f"`name:`) to {path.name!r}"
        )
    return "use a folder name or a hub id like 'owner/name'; folders are looked for in MODELS_DIR"


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    manifest = read_object(path, {})
    if not isinstance(manifest.get("family"), str | None):
        raise ModelLoadError(f"{path}: family {manifest['family']!r} is no name of a family")
    if manifest.get("adapter"):
        raise ModelLoadError(f"{path} says that the folder holds an adapter, but it holds a whole model")
    return manifest


def _check_adapters(folder: Path) -> None:
    """Refuses adapter files beside whole weights: transformers would apply them without a word."""
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


def _check_kind(name: str, folder: Path, config: dict[str, Any], *, is_cross_encoder: bool) -> None:
    """Says what a reranker that is configured as an encoder is, and the reverse."""
    classes = config.get("architectures") or []
    classifies = any(str(kind).endswith("ForSequenceClassification") for kind in classes)
    saved_by = read_model_type(folder)
    is_reranker = saved_by == "CrossEncoder" or (classifies and not has_pooling(folder))
    what = f"{folder} ({', '.join(map(str, classes)) or saved_by})"
    if is_reranker and not is_cross_encoder:
        raise ModelLoadError(
            f"{what} is a reranker (a cross-encoder), which has no vectors; configure {name!r} under `rerankers:` with "
            f"`kind: cross-encoder`, not under `models:`, as MODEL_NAME or with the family of an encoder"
        )
    if is_cross_encoder and not is_reranker and (classes or saved_by):
        raise ModelLoadError(
            f"{what} is an encoder, not a cross-encoder; configure {name!r} under `models:`, or, if it is a BGE-M3, "
            f"under `rerankers:` with `kind: colbert`"
        )


def _check_prompts(folder: Path, profile: Profile) -> None:
    said = read_prompts(folder)
    if said is None or (said.query, said.document) == (profile.query_prefix, profile.passage_prefix):
        return
    prompts = {"query": profile.query_prefix, "document": profile.passage_prefix}
    not_served(
        said.path,
        f"the prompt {said.query!r} for queries and {said.document!r} for documents",
        f"the family {profile.family} has {json.dumps(prompts, ensure_ascii=False)}: write these under `prompts`, or "
        f"say another family with `family:` or MODEL_FAMILY",
    )


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
