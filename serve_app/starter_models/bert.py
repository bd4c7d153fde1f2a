"""The package's tensors under the names of transformers' BertModel, and the configuration to go with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.floating[Any]]

# Name in the file -> (name in BertModel, shape). H is the hidden size, F the feed-forward size, V, P and T the number
# of words, positions and token types.
_EMBEDDINGS = {
    "emb.word": ("word_embeddings.weight", "VH"),
    "emb.pos": ("position_embeddings.weight", "PH"),
    "emb.type": ("token_type_embeddings.weight", "TH"),
    "emb.ln.w": ("LayerNorm.weight", "H"), "emb.ln.b": ("LayerNorm.bias", "H"),
}  # fmt: skip
_LAYER = {
    "q.w": ("attention.self.query.weight", "HH"), "q.b": ("attention.self.query.bias", "H"),
    "k.w": ("attention.self.key.weight", "HH"), "k.b": ("attention.self.key.bias", "H"),
    "v.w": ("attention.self.value.weight", "HH"), "v.b": ("attention.self.value.bias", "H"),
    "ao.w": ("attention.output.dense.weight", "HH"), "ao.b": ("attention.output.dense.bias", "H"),
    "aln.w": ("attention.output.LayerNorm.weight", "H"), "aln.b": ("attention.output.LayerNorm.bias", "H"),
    "fi.w": ("intermediate.dense.weight", "FH"), "fi.b": ("intermediate.dense.bias", "F"),
    "fo.w": ("output.dense.weight", "HF"), "fo.b": ("output.dense.bias", "H"),
    "oln.w": ("output.LayerNorm.weight", "H"), "oln.b": ("output.LayerNorm.bias", "H"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class EncoderSizes:
    """Sizes of a BERT encoder.

    Attributes:
        hidden, layers, heads, ffn: width of the states, number of layers and heads, width of the feed-forward.
        vocab: rows of the word embedding; at least the number of pieces.
        positions: rows of the position embedding.
        token_types: rows of the token-type embedding.
    """

    hidden: int
    layers: int
    heads: int
    ffn: int
    vocab: int
    positions: int
    token_types: int


def bert_state(sizes: EncoderSizes, tensor: Callable[[str, tuple[int, ...]], Weights]) -> dict[str, Weights]:
    """All weights of a BertModel (or an XLMRobertaModel, which has the same parameters).

    E5 averages token states and never reads BERT's pooler, which the package leaves out. An identity stands in, so
    that loading neither warns nor draws random numbers.

    Args:
        sizes: of the encoder.
        tensor: gives the weights for a name in the file and a shape; a linear layer is ``[out, in]``.

    Returns:
        Parameter name -> what ``tensor`` gave, in its type.
    """
    size = {"H": sizes.hidden, "F": sizes.ffn, "V": sizes.vocab, "P": sizes.positions, "T": sizes.token_types}

    def named(source: str, target: str, table: dict[str, tuple[str, str]]) -> dict[str, Weights]:
        return {
            target + name: tensor(source + short, tuple(size[dim] for dim in dims))
            for short, (name, dims) in table.items()
        }

    state = named("", "embeddings.", _EMBEDDINGS)
    dtype = state["embeddings.LayerNorm.weight"].dtype
    state["pooler.dense.weight"] = np.eye(sizes.hidden, dtype=dtype)
    state["pooler.dense.bias"] = np.zeros(sizes.hidden, dtype)
    for layer in range(sizes.layers):
        state |= named(f"l{layer}.", f"encoder.layer.{layer}.", _LAYER)
    return state


def bert_config(sizes: EncoderSizes, layer_norm_eps: float = 1e-12) -> dict[str, Any]:
    """The content of ``config.json`` of a BertModel with an XLM-RoBERTa vocabulary."""
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.ffn,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": sizes.positions,
        "type_vocab_size": sizes.token_types,
        "vocab_size": sizes.vocab,
        "layer_norm_eps": layer_norm_eps,
        "initializer_range": 0.02,
        # Not the tokenizer's 1 but 0, as the published model has it: harmless, attention_mask hides the padding.
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "tokenizer_class": "XLMRobertaTokenizer",
        # The type to compute in; the file may store another. Half floats halve the file; on a CPU they are slow.
        "dtype": "float32",
    }
