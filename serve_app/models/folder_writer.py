"""The files of an ordinary Hugging Face / sentence-transformers model folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve_app.domain.folder_json import write_json
from serve_app.domain.profiles import Pooling, Profile, TextRole


def write_weights(folder: Path, state: Mapping[str, NDArray[np.floating[Any]]]) -> None:
    """Write ``model.safetensors``, readable for everyone (safetensors alone makes it 0600).

    Args:
        folder: an existing folder.
        state: parameter name -> array; stored in the type it has.
    """
    from safetensors.numpy import save_file

    path = folder / "model.safetensors"
    save_file({name: np.ascontiguousarray(value) for name, value in state.items()}, path, metadata={"format": "pt"})
    path.chmod(0o644)


def write_sentence_transformers(
    folder: Path,
    *,
    hidden: int,
    pooling: Pooling,
    max_length: int,
    prompts: Mapping[str, str] | None = None,
    lower_case: bool = False,
) -> None:
    """Write ``modules.json`` and what it names: transformer, pooling, unit length.

    Args:
        folder: an existing folder that holds, or will hold, the transformer itself.
        hidden: width of the token states.
        pooling: how token states become one vector: their mean, or the state of ``<s>``.
        max_length: the longest text in tokens, special tokens included.
        prompts: prompt name -> prefix, as sentence-transformers applies them.
        lower_case: whether texts are read in lower case.
    """
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    for _, path in modules:
        (folder / path).mkdir(exist_ok=True)
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(modules)
    ]
    write_json(folder / "modules.json", entries)
    modes = {
        "pooling_mode_cls_token": pooling is Pooling.CLS,
        "pooling_mode_mean_tokens": pooling is Pooling.MEAN,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": hidden, **modes})
    write_json(folder / "2_Normalize" / "config.json", {})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": lower_case})
    wrapper = {"prompts": dict(prompts or {}), "default_prompt_name": None, "similarity_fn_name": "cosine"}
    write_json(folder / "config_sentence_transformers.json", wrapper)


def prompts_of(profile: Profile) -> dict[str, str]:
    """A family's prefixes under the names that sentence-transformers knows; empty if it has none."""
    prompts = {"query": profile.format(TextRole.QUERY, ""), "document": profile.format(TextRole.PASSAGE, "")}
    return {name: prefix for name, prefix in prompts.items() if prefix}
