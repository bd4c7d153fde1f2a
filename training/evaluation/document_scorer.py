"""Scores of documents for a set of queries, by each representation that a served model computes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from serve_app.domain.embeddings import Encoded, Float32
from serve_app.domain.profiles import Capability
from serve_app.models.scoring import MAX_SIMILARITIES


class DocumentScorer:
    """Scores of one document after the other for a fixed set of queries.

    The ColBERT vectors of the queries stay on the device, ``4 * dim`` bytes for each of their tokens; those of a
    document are needed once.
    """

    def __init__(self, queries: Sequence[Encoded], device: torch.device | str = "cpu") -> None:
        """Takes at least one query; what the first one has, all have."""
        self._dense = np.stack([query.dense for query in queries])
        self._count = len(queries)
        self.heads = [Capability.DENSE]
        sparse = [query.sparse for query in queries if query.sparse is not None]
        if len(sparse) == len(queries):
            self.heads.append(Capability.SPARSE)
            self._ids, self._weights = (np.concatenate(part) for part in zip(*sparse, strict=True))
            self._owners = np.repeat(np.arange(len(queries)), [len(ids) for ids, _ in sparse])
            self._vocabulary = np.unique(self._ids)
            self._columns = np.searchsorted(self._vocabulary, self._ids)
        colbert = [query.colbert for query in queries if query.colbert is not None]
        if len(colbert) == len(queries):
            self.heads.append(Capability.COLBERT)
            self._tokens = torch.from_numpy(np.concatenate(colbert)).to(device)
            self._lengths = np.array([len(vectors) for vectors in colbert])

    def score(self, document: Encoded) -> dict[Capability, Float32]:
        """float32 ``[queries]`` by each head: dot product, sum of products of common weights, mean of MaxSim."""
        scores: dict[Capability, Float32] = {Capability.DENSE: self._dense @ document.dense}
        if document.sparse is not None and Capability.SPARSE in self.heads:
            scores[Capability.SPARSE] = self._sparse(*document.sparse)
        if document.colbert is not None and Capability.COLBERT in self.heads:
            scores[Capability.COLBERT] = self._colbert(document.colbert)
        return scores

    def _sparse(self, ids: np.ndarray, weights: Float32) -> Float32:
        of_document = np.zeros(len(self._vocabulary), np.float32)
        common, columns, own = np.intersect1d(self._vocabulary, ids, assume_unique=True, return_indices=True)
        if not len(common):
            return np.zeros(self._count, np.float32)
        of_document[columns] = weights[own]
        products = self._weights * of_document[self._columns]
        return np.bincount(self._owners, products, self._count).astype(np.float32)

    @torch.inference_mode()
    def _colbert(self, vectors: Float32) -> Float32:
        document = torch.from_numpy(vectors).to(self._tokens.device).T
        rows = max(1, MAX_SIMILARITIES // document.shape[1])
        best = torch.cat([(part @ document).amax(dim=1) for part in torch.split(self._tokens, rows)]).cpu().numpy()
        starts = np.cumsum(self._lengths) - self._lengths
        return np.asarray(np.add.reduceat(best, starts) / self._lengths, np.float32)
