"""What FlagEmbedding, the library of BGE-M3's authors, computes on a model folder: the reference of parity tests.

Its own class tokenises and computes. Two things are done here instead, as our wire has them: where two ids decode to
one text, FlagEmbedding keeps the one that it meets last, we the larger weight; and it leaves ``<mask>`` in a text's
sparse weights, where we have no special token at all.

FlagEmbedding takes seconds to import, so that happens when a reference is made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class M3Vectors:
    """Three representations of n texts, in the order of the texts.

    Attributes:
        dense: float32 ``[n, hidden]``, unit length.
        sparse: for each text, token as text -> weight above zero.
        colbert: for each text, float32 ``[tokens - 1, hidden]`` of unit length; ``<s>`` has none, ``</s>`` has one.
    """

    dense: NDArray[np.float32]
    sparse: list[dict[str, float]]
    colbert: list[NDArray[np.float32]]


class M3Reference:
    """FlagEmbedding's BGEM3FlagModel on a folder: one CPU, float32."""

    def __init__(self, folder: Path) -> None:
        """Loads the model; pooling as the folder's ``1_Pooling/config.json`` says, for FlagEmbedding never reads it.

        Raises:
            FileNotFoundError: A head is missing. FlagEmbedding would go on with random numbers.
        """
        for head in ("colbert_linear.pt", "sparse_linear.pt"):
            if not (folder / head).is_file():
                raise FileNotFoundError(folder / head)
        from FlagEmbedding import BGEM3FlagModel

        modes = json.loads((folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
        pooling = "mean" if modes["pooling_mode_mean_tokens"] else "cls"
        self._model = BGEM3FlagModel(str(folder), use_fp16=False, devices="cpu", pooling_method=pooling)
        self._special = set(self._model.tokenizer.all_special_ids)

    def encode(self, texts: Sequence[str], *, max_tokens: int = 8192, batch_size: int = 8) -> M3Vectors:
        """All three representations; texts longer than ``max_tokens`` lose their end."""
        found = self._model.encode(
            list(texts),
            batch_size=batch_size,
            max_length=max_tokens,
            return_dense=True,
            return_sparse=True,
            return_colbert_vecs=True,
        )
        weights = [{int(token): float(weight) for token, weight in item.items()} for item in found["lexical_weights"]]
        return M3Vectors(
            dense=found["dense_vecs"],
            sparse=[by_text(item, self._special, self._decode) for item in weights],
            colbert=found["colbert_vecs"],
        )

    def colbert_score(self, query: NDArray[np.float32], passage: NDArray[np.float32]) -> float:
        """FlagEmbedding's own: the mean over the query's vectors of the best product with the passage's."""
        return float(self._model.colbert_score(query, passage))

    def _decode(self, token: int) -> str:
        """As in FlagEmbedding's ``convert_id_to_token``."""
        text: str = self._model.tokenizer.decode([token])
        return text


def by_text(weights: Mapping[int, float], special: Collection[int], decode: Callable[[int], str]) -> dict[str, float]:
    """Token id -> weight as token text -> weight: no special tokens, the larger weight where two ids decode alike."""
    out: dict[str, float] = {}
    for token, weight in weights.items():
        if token not in special:
            text = decode(token)
            out[text] = max(weight, out.get(text, 0.0))
    return out
