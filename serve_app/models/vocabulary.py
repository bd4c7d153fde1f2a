"""The vocabulary of a model folder, shared by all models that have the same one, and token ids as readable text.

The reference is what ``transformers`` does with the same folder, which training and
sentence-transformers use. It builds the pre-tokenizer of the class XLMRobertaTokenizer itself
(split at white space, then mark words) and ignores the one in tokenizer.json; so does this module. The only
texts where it matters have blanks at an end or in a row. With do_lower_case in
sentence_bert_config.json, sentence-transformers lower-cases texts first; so does this module.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from weakref import WeakValueDictionary

from serve_app.domain.errors import ModelLoadError
from serve_app.domain.folder_json import read_object
from serve_app.models.sentence_settings import lowers_case

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # replicas share cores with the model

from tokenizers import Tokenizer, normalizers, pre_tokenizers

_WORD_START = "▁"


class Vocabulary:
    """The pieces of a tokenizer, with a cache of their texts.

    Attributes:
        tokenizer: Without padding and truncation; shared, so it must not be changed.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Takes the tokenizer."""
        self.tokenizer = tokenizer
        self._special = {id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self._texts: dict[int, str] = {}

    def weights_by_text(self, ids: Iterable[int], weights: Iterable[float]) -> dict[str, float]:
        """The weight of each token by its text, as FlagEmbedding spells it: the token decoded alone.

        Special tokens are left out. Two ids that read the same (a piece inside a word and at its start) keep
        the larger weight.
        """
        named: dict[str, float] = {}
        for id, weight in zip(ids, weights, strict=True):
            if id not in self._special:
                text = self._text(id)
                named[text] = max(weight, named.get(text, 0.0))
        return named

    def weights_by_id(self, ids: Iterable[int], weights: Iterable[float]) -> list[tuple[int, float]]:
        """The weight of each token by its id; special tokens are left out."""
        return [(id, weight) for id, weight in zip(ids, weights, strict=True) if id not in self._special]

    @cached_property
    def size(self) -> int:
        """Every id is below it; the number of tokens, unless added ones leave a gap."""
        added = self.tokenizer.get_added_tokens_decoder()
        return max(int(self.tokenizer.get_vocab_size()), max(added, default=-1) + 1)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The tokens as they stand in the text; a leading blank marks the start of a word."""
        return [(self.tokenizer.id_to_token(id) or "").replace(_WORD_START, " ") for id in ids]

    def _text(self, id: int) -> str:
        text = self._texts.get(id)
        if text is None:
            text = self._texts[id] = self.tokenizer.decode([id])
        return text


_loaded: WeakValueDictionary[tuple[str, str | None, bool], Vocabulary] = WeakValueDictionary()


def load_vocabulary(folder: Path) -> Vocabulary:
    """Reads ``tokenizer.json``; the same file in another folder is not loaded twice (XLM-RoBERTa's takes 300 MB).

    Raises:
        ModelLoadError: It, ``tokenizer_config.json`` or ``sentence_bert_config.json`` cannot be read.
    """
    path = folder / "tokenizer.json"
    try:
        content = path.read_bytes()
        key = hashlib.sha256(content).hexdigest(), _word_start_scheme(folder), lowers_case(folder)
        if (known := _loaded.get(key)) is not None:
            return known
        tokenizer = Tokenizer.from_buffer(content)
    except ModelLoadError:
        raise
    except Exception as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if key[1] is not None:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.WhitespaceSplit(),
                pre_tokenizers.Metaspace(replacement=_WORD_START, prepend_scheme=key[1]),
            ]
        )
    if key[2]:
        lower = normalizers.Lowercase()
        own = tokenizer.normalizer
        tokenizer.normalizer = normalizers.Sequence([lower, own]) if own else lower
    vocabulary = _loaded[key] = Vocabulary(tokenizer)
    return vocabulary


def _word_start_scheme(folder: Path) -> str | None:
    """The prepend scheme of the class XLMRobertaTokenizer; None for other classes."""
    path = folder / "tokenizer_config.json"
    config = read_object(path, {})
    name = config.get("tokenizer_class")
    if name is None and read_object(folder / "config.json", {}).get("model_type") == "xlm-roberta":
        name = "XLMRobertaTokenizer"  # as transformers chooses
    if not str(name).startswith("XLMRobertaTokenizer"):
        return None
    return "always" if config.get("add_prefix_space", True) else "never"
