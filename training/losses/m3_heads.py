"""BGE-M3's three representations, from the token states of one forward, with gradients.

Dense, sparse and ColBERT as in "BGE M3-Embedding" (Chen et al., 2024), section 3.1, and in FlagEmbedding's
``EncoderOnlyEmbedderM3Model``. The first token, ``<s>``, carries the dense vector where pooling is CLS; it has
neither a ColBERT vector nor a sparse weight, so all that is kept per token starts with the second one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn import functional

from serve_app.domain.embeddings import Encoded
from serve_app.models.head_files import read_heads, write_heads
from serve_app.models.heads import max_weight_per_token


@dataclass(frozen=True)
class M3Vectors:
    """The representations of some texts, padded to the longest. ``length`` counts tokens without the first.

    Attributes:
        dense: float32 ``[texts, hidden]``, unit vectors.
        colbert: float32 ``[texts, length, dim]``, unit vectors; what stands at a pad means nothing.
        weights: float32 ``[texts, length]``, sparse weight of each token; 0 at pads and special tokens.
        ids: int64 ``[texts, length]``, token ids.
        mask: bool ``[texts, length]``, false at pads.
    """

    dense: Tensor
    colbert: Tensor
    weights: Tensor
    ids: Tensor
    mask: Tensor

    @classmethod
    def concatenate(cls, parts: Sequence[M3Vectors]) -> M3Vectors:
        """All texts of some parts, in order, padded to the longest of them."""
        longest = max(part.mask.shape[1] for part in parts)
        missing = [longest - part.mask.shape[1] for part in parts]
        return cls(
            dense=torch.cat([part.dense for part in parts]),
            colbert=torch.cat([functional.pad(p.colbert, (0, 0, 0, n)) for p, n in zip(parts, missing, strict=True)]),
            weights=torch.cat([functional.pad(p.weights, (0, n)) for p, n in zip(parts, missing, strict=True)]),
            ids=torch.cat([functional.pad(p.ids, (0, n)) for p, n in zip(parts, missing, strict=True)]),
            mask=torch.cat([functional.pad(p.mask, (0, n)) for p, n in zip(parts, missing, strict=True)]),
        )


class M3Heads(nn.Module):
    """The two linear layers behind BGE-M3's encoder. They stay float32 and are always trained in full."""

    def __init__(self, colbert_linear: nn.Linear, sparse_linear: nn.Linear) -> None:
        """Takes the layers: ``hidden -> dim`` and ``hidden -> 1``."""
        super().__init__()
        self.colbert_linear = colbert_linear.float()
        self.sparse_linear = sparse_linear.float()

    @classmethod
    def load(cls, folder: Path) -> M3Heads:
        """Reads the heads of a folder for training; see ``read_heads``.

        Raises:
            ModelLoadError: A file is missing or damaged, or the two do not fit together.
        """
        sparse, colbert = read_heads(folder)
        return cls(colbert, sparse)

    def save(self, folder: Path) -> None:
        """Writes both files, float32, into an existing folder."""
        write_heads(folder, sparse=self.sparse_linear.state_dict(), colbert=self.colbert_linear.state_dict())

    def encode(self, model: SentenceTransformer, output: Mapping[str, Tensor]) -> Encoded:
        """All representations of one text, from the model's output for a batch of that text."""
        vectors = represent(output, self, special_ids_of(model).to(model.device))
        kept = vectors.mask[0]
        ids, weights, colbert = (v[0][kept].cpu().numpy() for v in (vectors.ids, vectors.weights, vectors.colbert))
        sparse = max_weight_per_token(ids.astype(np.int32), weights, np.array([len(ids)]))
        return Encoded(vectors.dense[0].cpu().numpy(), (sparse[0].values, sparse[1].values), colbert)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Token states ``[..., hidden]`` to ColBERT unit vectors ``[..., dim]`` and sparse weights ``[...] >= 0``.

        Both are computed in float32, under autocast too: similarities are divided by a small temperature.
        """
        with torch.autocast(states.device.type, enabled=False):
            states = states.float()
            colbert = functional.normalize(self.colbert_linear(states), dim=-1)
            weights = torch.relu(self.sparse_linear(states)).squeeze(-1)
        return colbert, weights


def represent(output: Mapping[str, Tensor], heads: M3Heads, special_ids: Tensor) -> M3Vectors:
    """The representations of one mini-batch.

    Args:
        output: What a SentenceTransformer makes of its input: ``token_embeddings`` ``[texts, tokens, hidden]``,
            ``sentence_embedding`` ``[texts, hidden]`` (the model's own pooling), and the input's ``input_ids`` and
            ``attention_mask``, padded on the right.
        heads: The model's heads.
        special_ids: int64, the ids that never have a sparse weight.
    """
    ids, mask = output["input_ids"][:, 1:], output["attention_mask"][:, 1:].bool()
    colbert, weights = heads(output["token_embeddings"][:, 1:])
    silent = ~mask | torch.isin(ids, special_ids)
    return M3Vectors(
        dense=functional.normalize(output["sentence_embedding"].float(), dim=-1),
        colbert=colbert,
        weights=weights.masked_fill(silent, 0.0),
        ids=ids,
        mask=mask,
    )


def special_ids_of(model: SentenceTransformer) -> Tensor:
    """int64, the tokens that never have a sparse weight: FlagEmbedding leaves out these four."""
    tokenizer = model.tokenizer
    ids = [tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id]
    return torch.tensor([i for i in ids if i is not None], dtype=torch.int64)
