"""The settings that sentence-transformers keeps beside a model: text length, lower case, prompts, similarity.

Sources: ``base.modules.transformer`` and ``base.model`` of sentence-transformers 6.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_app.domain.errors import ModelLoadError
from serve_app.domain.folder_json import not_served, read_object

_KINDS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
_TASKS: Mapping[bool, tuple[str, str, str]] = {  # by: is it a cross-encoder
    False: ("feature-extraction", "last_hidden_state", "token_embeddings"),
    True: ("sequence-classification", "logits", "scores"),
}
_MUST_BE_EMPTY = (
    "processing_kwargs", "query_length", "document_length", "query_expansion", "tokenizer_name_or_path",
    "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs",
)  # fmt: skip
_HARMLESS_MODEL_ARGS = {"add_pooling_layer", "attn_implementation", "dtype", "torch_dtype"}
_NO_LIMIT = 10**9  # tokenizers write 10**30 for it
_LEAST_TOKENS = 3  # two are special
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
_SIMILARITIES = (None, "cosine", "dot")  # the same of vectors of length 1


@dataclass(frozen=True)
class Prompts:
    """The prompts of a folder.

    Attributes:
        path: The file with the prompts.
        query: Before a query, as ``encode_query`` does.
        document: Before a passage, as ``encode_document`` does.
    """

    path: Path
    query: str
    document: str


def read_max_tokens(folder: Path) -> int | None:
    """The folder's own limit of a text in tokens, special tokens included; None if it has none.

    ``max_seq_length`` of the transformer's settings wins; version 6 writes none there and leaves the bound in the
    tokenizer's ``model_max_length``.

    Raises:
        ModelLoadError: The bound is not a valid length.
    """
    path, settings = _transformer_settings(folder)
    tokenizer = folder / "tokenizer_config.json"
    for file, key, value in (
        (path, "max_seq_length", settings.get("max_seq_length")),
        (tokenizer, "model_max_length", read_object(tokenizer, {}).get("model_max_length")),
    ):
        if value is None:
            continue
        if isinstance(value, float) and value >= _NO_LIMIT:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < _LEAST_TOKENS:
            raise ModelLoadError(
                f"{file}: {key} {value!r} is not a text length; use a whole number of tokens, {_LEAST_TOKENS} or more"
            )
        return None if value >= _NO_LIMIT else value
    return None


def lowers_case(folder: Path) -> bool:
    """True if sentence-transformers lower-cases texts before the tokenizer (``do_lower_case``).

    Raises:
        ModelLoadError: The setting is neither true nor false.
    """
    path, settings = _transformer_settings(folder)
    value = settings.get("do_lower_case")
    if value is not None and not isinstance(value, bool):
        not_served(path, f"do_lower_case {value!r}", "true and false are")
    return bool(value)


def check_transformer_settings(folder: Path, *, cross_encoder: bool) -> None:
    """Raises ``ModelLoadError`` if a setting of the transformer changes what it computes and is not served."""
    path, settings = _transformer_settings(folder)
    task, method_output, output = _TASKS[cross_encoder]
    modality = {"text": {"method": "forward", "method_output_name": method_output}}
    required = {"transformer_task": task, "modality_config": modality, "module_output_name": output}
    for key, value in settings.items():
        if key in required and value != required[key]:
            not_served(path, f"{key} {value!r}", f"served is: {required[key]!r}")
        if key in _MUST_BE_EMPTY and value:
            not_served(path, f"{key} {value!r}", "remove it, or save the model without it")
        if key in ("model_args", "model_kwargs") and not set(value or ()) <= _HARMLESS_MODEL_ARGS:
            not_served(path, f"{key} {value!r}", f"served are: {', '.join(sorted(_HARMLESS_MODEL_ARGS))}")
        if key not in {*required, *_MUST_BE_EMPTY, *_READ, "model_args", "model_kwargs"}:
            not_served(path, f"the setting {key!r}", "sentence-transformers has no such setting of a transformer")
    _check_tokenizer_settings(folder)


_READ = ("max_seq_length", "do_lower_case", "unpad_inputs")  # the last changes no result


def _check_tokenizer_settings(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    side = read_object(path, {}).get("truncation_side", "right")
    if side != "right":  # the padding side is ours alone
        not_served(path, f"truncation_side {side!r}", "a long text loses its end: use right")


def read_prompts(folder: Path) -> Prompts | None:
    """The folder's prompts; None if it has none for queries and documents.

    Empty prompts for both count as none: sentence-transformers 5 and later write them into every folder that has none.

    Raises:
        ModelLoadError: They are not strings.
    """
    path, settings = _sentence_settings(folder)
    prompts = settings.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(text is None or isinstance(text, str) for text in prompts.values()):
        raise ModelLoadError(f"{path}: prompts must be an object of strings by name")
    default = settings.get("default_prompt_name")
    if default is not None and default not in [*prompts, "query", "document"]:
        raise ModelLoadError(f"{path}: default_prompt_name {default!r} is none of the prompts: {', '.join(prompts)}")
    if not any(prompts.get(name) for name in ("query", *_DOCUMENT_PROMPTS)):
        return None
    return Prompts(path, prompts.get("query") or "", prompts.get("document") or "")


def read_model_type(folder: Path) -> str | None:
    """The class that saved the folder, as ``SentenceTransformer`` or ``CrossEncoder``; None if it is not recorded."""
    value = _sentence_settings(folder)[1].get("model_type")
    return None if value is None else str(value)


def check_encoder_settings(folder: Path, hidden_size: int) -> None:
    """Raises ``ModelLoadError`` for settings of an embedding model's vectors that are not served."""
    path, settings = _sentence_settings(folder)
    if settings.get("truncate_dim") not in (None, hidden_size):
        not_served(path, f"truncate_dim {settings['truncate_dim']!r}", "remove it; a request can ask for `dimensions`")
    if settings.get("similarity_fn_name") not in _SIMILARITIES:
        not_served(path, f"similarity_fn_name {settings['similarity_fn_name']!r}", "cosine and dot are")


def check_cross_encoder_settings(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises ``ModelLoadError`` if a cross-encoder's scores are not a sigmoid of its logits, or it has a prompt."""
    path, settings = _sentence_settings(folder)
    inner = config.get("sentence_transformers")
    activations = {
        path: settings.get("activation_fn"),
        folder / "config.json": (inner.get("activation_fn") if isinstance(inner, dict) else None)
        or config.get("sbert_ce_default_activation_function"),
    }
    for file, activation in activations.items():
        if activation is not None and not str(activation).endswith(".Sigmoid"):
            not_served(
                file, f"activation_fn {activation!r}", "scores are a sigmoid of the logits: use torch.nn.Sigmoid, and "
                "`normalize: false` in a request for the logits"
            )  # fmt: skip
    prompts = settings.get("prompts") or {}
    default = settings.get("default_prompt_name")
    if default is not None and isinstance(prompts, dict) and prompts.get(default):
        not_served(path, f"the prompt {prompts[default]!r} of a cross-encoder", "remove default_prompt_name")


def _transformer_settings(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The first of the files that has content, in the order of sentence-transformers."""
    for kind in _KINDS:
        path = folder / f"sentence_{kind}_config.json"
        if settings := read_object(path, {}):
            return path, settings
    return folder / "sentence_bert_config.json", {}


def _sentence_settings(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "config_sentence_transformers.json"
    return path, read_object(path, {})
