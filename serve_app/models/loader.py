"""From a model's source to something that computes: the only place that picks a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from serve_app.domain.embeddings import Float32, Int32
from serve_app.domain.errors import NonFiniteError, ServiceError
from serve_app.models.isolation import run_isolated
from serve_app.models.transformer import Transformer, choose_device, choose_dtype

if TYPE_CHECKING:
    from serve_app.models.source import ModelSource


class EmbeddingModel:
    """A loaded model whose failures stay with the text that caused them."""

    def __init__(self, transformer: Transformer) -> None:
        """Wraps a transformer that is ready to compute."""
        self.transformer = transformer

    def embed(self, texts: Sequence[Int32]) -> list[Float32 | ServiceError]:
        """One float32 ``[dimension]`` unit vector, or an error, for each text, in order. Never raises."""
        return run_isolated(self._embed_all, texts, release_memory=self.transformer.release_memory)

    def _embed_all(self, texts: Sequence[Int32]) -> list[Float32 | ServiceError]:
        vectors = self.transformer.embed(texts)
        finite = np.isfinite(vectors.sum(axis=1))
        return [
            vector if ok else NonFiniteError("the model computed no finite vector for this text")
            for vector, ok in zip(vectors, finite, strict=True)
        ]


def load_model(source: ModelSource, *, device: str = "auto", dtype: str = "auto", threads: int = 1) -> EmbeddingModel:
    """Loads a model.

    Args:
        source: From ``find_model``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        threads: Torch threads of this process.

    Raises:
        ModelLoadError: The weights or the device are missing.
    """
    place = choose_device(device)
    return EmbeddingModel(Transformer(source, device=place, dtype=choose_dtype(dtype, place), threads=threads))
