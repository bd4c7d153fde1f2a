"""Discovery of models: a folder below the models directory, or a repository on the model hub.

Free of torch, because the ingress uses it too: it needs the tokenizer and the card, never the weights.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_app.domain.errors import ModelLoadError
from serve_app.domain.folder_json import not_served, read_object
from serve_app.domain.manifest import MANIFEST_FILE, Manifest
from serve_app.domain.profiles import PROFILES, Capability, Pooling, Profile, resolve_profile
from serve_app.models.architecture import check_architecture, usable_positions
from serve_app.models.folder_kind import check_adapters, check_saved_by, is_reranker, require_encoder, require_reranker
from serve_app.models.hub import download
from serve_app.models.sentence_modules import check_modules, read_pooling
from serve_app.models.sentence_settings import (
    check_cross_encoder_settings,
    check_encoder_settings,
    check_transformer_settings,
    read_max_tokens,
    read_prompts,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99})?")


@dataclass(frozen=True)
class ModelSource:
    """A model's description: everything that is known before its weights are read.

    Attributes:
        name: The name it is served by.
        folder: An ordinary Hugging Face model folder on this machine.
        profile: Its family.
        pooling: From the folder (``modules.json``), else the family's.
        dimension: Length of the dense vector.
        max_tokens: Longest input: the folder's limit, else the family's, but no more than the model has positions.
        rows: Of the embedding table; every token id is below it. None if the folder does not record it.
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
            f"these have: {able}. If the inferred family is wrong, set `family:` beside the model's name (or "
            f"MODEL_FAMILY)"
        )


def is_model_name(name: str) -> bool:
    """True for the name of a folder or a hub id, which cannot lead out of the models directory."""
    return _NAME.fullmatch(name) is not None


def find_model(name: str, models_dir: Path, *, family: str | None = None, weights: bool = True) -> ModelSource:
    """Finds a model by name: the folder ``models_dir/name`` if it exists, else that name on the hub.

    Args:
        name: A folder name or a hub id such as ``intfloat/multilingual-e5-large``.
        models_dir: The folder that holds model folders.
        family: Overrides the manifest and the inference from the name.
        weights: Whether to download the weights; without them a hub model costs a few megabytes.

    Raises:
        ModelLoadError: The model does not exist, its family is unknown, or files are missing.
    """
    if not is_model_name(name):
        raise ModelLoadError(f"{name!r} is not a model name: {_instead_of(name)}")
    folder = models_dir / name
    if not folder.is_dir():
        _check_owner(name, models_dir)
        resolve_profile(name, family)  # raises for an unknown family before any download
        folder = download(name, models_dir, weights=weights)
    return describe(name, folder, family=family)


def describe(name: str, folder: Path, *, family: str | None = None) -> ModelSource:
    """Reads a model folder's own files: manifest, configuration, modules, prompts, limits.

    Every setting of the folder is honoured as in sentence-transformers, or raises an error.

    Raises:
        ModelLoadError: A file is missing, unreadable, or has an unsupported setting; the message names it.
    """
    check_adapters(folder)
    check_saved_by(folder)
    config = read_object(folder / "config.json")
    reranks = bool(is_reranker(folder, config))
    width = check_architecture(folder / "config.json", config, is_cross_encoder=reranks)
    profile = _profile(name, folder, config, family)
    is_cross_encoder = Capability.PAIR_SCORE in profile.capabilities
    (require_reranker if is_cross_encoder else require_encoder)(name, folder, config)
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


def _check_owner(name: str, models_dir: Path) -> None:
    """Raises ``ModelLoadError`` for ``models/my-e5`` where ``my-e5`` is a folder in ``models``: no owner of the hub."""
    owner, _, last = name.partition("/")
    if last and owner == models_dir.name and (models_dir / last).is_dir():
        raise ModelLoadError(
            f"no model {name!r} in {models_dir}, but {last!r} is there; use that as MODEL_NAME or `name:`"
        )


def _instead_of(name: str) -> str:
    """Advice for an invalid name, above all for a path."""
    path = Path(name).expanduser()
    if path.name and is_model_name(path.name) and ("/" in name or name.startswith("~")):
        return (
            f"it is a path; set MODELS_DIR (or `models_dir:`) to {str(path.absolute().parent)!r} and MODEL_NAME (or "
            f"`name:`) to {path.name!r}"
        )
    return "use a folder name or a hub id like 'owner/name'; folders are looked for in MODELS_DIR"


def _profile(name: str, folder: Path, config: dict[str, Any], family: str | None) -> Profile:
    manifest = Manifest.read(folder)
    if manifest.adapter:
        raise ModelLoadError(
            f"{folder / MANIFEST_FILE} describes an adapter, but the folder holds a whole model; copy the adapter's "
            f"files again, or remove the manifest"
        )
    try:
        return resolve_profile(name, family or manifest.family)
    except ModelLoadError:
        require_encoder(name, folder, config)  # the error for a reranker comes first
        raise


def _check_prompts(folder: Path, profile: Profile) -> None:
    prompts = read_prompts(folder)
    if prompts is None or (prompts.query, prompts.document) == (profile.query_prefix, profile.passage_prefix):
        return
    expected = {"query": profile.query_prefix, "document": profile.passage_prefix}
    not_served(
        prompts.path,
        f"the prompt {prompts.query!r} for queries and {prompts.document!r} for documents",
        f"the family {profile.family} has {json.dumps(expected, ensure_ascii=False)}: write these under `prompts`, or "
        f"set another family with `family:` or MODEL_FAMILY",
    )
