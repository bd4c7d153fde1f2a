"""Attention over texts that stand one after the other in one row, each attending to itself alone.

Registered with transformers under the name ``packed``, so that its own layers run without padding: BERT, XLM-RoBERTa,
ModernBERT, Qwen3 and all others that dispatch attention by ``ALL_ATTENTION_FUNCTIONS``. A CUDA device uses
``torch.nn.attention.varlen.varlen_attn`` (flash attention; bfloat16 and float16 only), any other device one
``scaled_dot_product_attention`` for each text, which computes the same.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

PACKED = "packed"
_UNSUPPORTED = ("softcap", "s_aux")  # of Gemma 2 and of gpt-oss; without them the result would be another one


def register_packed_attention() -> None:
    """Makes ``packed`` an attention implementation of transformers; may be called again."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, _no_mask)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Self-attention within each text of a packed row, in the form that transformers' layers call.

    Args:
        module: The layer; its ``is_causal`` counts where ``is_causal`` is not given.
        query: ``[1, heads, tokens, width]``.
        key: ``[1, key heads, tokens, width]``; with fewer heads than the query each serves several (GQA).
        value: As ``key``.
        attention_mask: None; which tokens see each other follows from the texts.
        cu_seq_lens_q: int32 ``[n + 1]`` where the texts begin, and the number of tokens.
        max_length_q: Tokens of the longest text, or more.
        scaling: Of the scores; None for ``width ** -0.5``.
        sliding_window: Tokens that a token sees on each side of it, itself included; None for all.
        is_causal: Whether a token sees no later ones.
        kwargs: Of other implementations; those that would change the result are refused.

    Returns:
        ``[1, tokens, heads, width]``, and None for the weights.

    Raises:
        NotImplementedError: The layer asks for something that is not computed here.
    """
    for name in _UNSUPPORTED:
        if kwargs.get(name) is not None:
            raise NotImplementedError(f"packed attention does not compute {name!r}")
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    reach = -1 if sliding_window is None else sliding_window - 1
    attend = _varlen if query.is_cuda else _text_by_text
    q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))  # [tokens, heads, width]
    window = (reach, 0 if causal else reach)
    return attend(q, k, v, cu_seq_lens_q, max_length_q, scaling, window)[None], None


def _varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    starts: torch.Tensor, longest: int, scale: float | None, window: tuple[int, int],
) -> torch.Tensor:  # fmt: skip
    from torch.nn.attention.varlen import varlen_attn

    result = varlen_attn(
        query, key, value, starts, starts, longest, longest,
        scale=scale, window_size=window, enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    assert isinstance(result, torch.Tensor)  # it has more than one part only if it is asked to
    return result


def _text_by_text(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    starts: torch.Tensor, longest: int, scale: float | None, window: tuple[int, int],
) -> torch.Tensor:  # fmt: skip
    result = torch.empty_like(query)
    bounds = starts.tolist()
    for start, end in pairwise(bounds):
        if end == start:
            continue
        q, k, v = (each[start:end].transpose(0, 1)[None] for each in (query, key, value))
        attended = scaled_dot_product_attention(
            q, k, v, attn_mask=_window_mask(end - start, window), scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        result[start:end] = attended[0].transpose(0, 1)
    return result


def _window_mask(length: int, window: tuple[int, int]) -> torch.Tensor | None:
    """Bool ``[length, length]``, true where a token (row) sees another; None if each sees all."""
    before, after = (length if reach < 0 else reach for reach in window)
    if before >= length - 1 and after >= length - 1:
        return None
    distance = torch.arange(length)[None, :] - torch.arange(length)[:, None]
    return (distance >= -before) & (distance <= after)


def _no_mask(*_: Any, **__: Any) -> None:
    """In place of a mask over a padded rectangle: a packed row needs none."""
