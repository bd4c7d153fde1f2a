"""XLM-RoBERTa's SentencePiece normalisation map, rebuilt from the part that the package contains.

The 4-bit file keeps only what each single character becomes. XLM-R's map, ``nmt_nfkc`` of an older Unicode, also
composes sequences (e + U+0301 -> e-acute). SentencePiece has the same rules built in, from a newer
Unicode: those that touch a character the package treats differently are dropped (characters that came into Unicode
later, and U+200D), and the package's own are put on top. Needs sentencepiece 0.2.2, the first to take maps apart.
"""

from __future__ import annotations

from collections.abc import Mapping

from sentencepiece import SentencePieceNormalizer, SetMinLogLevel, sentencepiece_model_pb2

SetMinLogLevel(1)  # it logs the size of every map to stderr

_RULES = "nmt_nfkc"


def builtin_charsmap() -> bytes:
    """SentencePiece's own ``nmt_nfkc``, compiled: what a newly trained XLM-R style vocabulary uses."""
    return _compiled(SentencePieceNormalizer(rule_name=_RULES))


def xlm_r_charsmap(char_map: Mapping[str, str]) -> bytes:
    """XLM-RoBERTa's map, compiled for ``tokenizers.normalizers.Precompiled``.

    Args:
        char_map: the package's rules, one character -> its replacement. They win over SentencePiece's.

    Returns:
        u32 size of a Darts double array, the array, and the NUL-terminated replacements its leaves point at.
    """
    return _compiled(SentencePieceNormalizer(norm_map=sorted(merged_rules(builtin_rules(), char_map).items())))


def builtin_rules() -> dict[str, str]:
    """The rules of ``nmt_nfkc``: a character or a sequence -> its replacement (225,276 of them in Unicode 15)."""
    return dict(SentencePieceNormalizer(rule_name=_RULES).Decompile())


def merged_rules(builtin: Mapping[str, str], char_map: Mapping[str, str]) -> dict[str, str]:
    """The rules of ``char_map`` for single characters, and those of ``builtin`` for sequences."""
    changed = {key for key, value in builtin.items() if len(key) == 1 and char_map.get(key) != value}
    kept = {key: value for key, value in builtin.items() if changed.isdisjoint(key)}
    return kept | dict(char_map)


def _compiled(normalizer: SentencePieceNormalizer) -> bytes:
    spec = sentencepiece_model_pb2.NormalizerSpec()  # type: ignore[attr-defined]  # a class made at run time
    spec.ParseFromString(normalizer.serialized_normalizer_spec())
    return bytes(spec.precompiled_charsmap)
