"""Loading of models: the only module that chooses a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.domain.profiles import Capability
from serve_app.models.cross_encoder import CrossEncoder
from serve_app.models.embedder import EmbeddingModel
from serve_app.models.heads import TokenHeads
from serve_app.models.tokenizer_check import check_tokenizer
from serve_app.models.transformer import Transformer, choose_device, choose_dtype

if TYPE_CHECKING:
    from serve_app.models.model_source import ModelSource


def load_model(
    source: ModelSource, *, device: str = "auto", dtype: str = "auto", threads: int = 1, dense_only: bool = False
) -> EmbeddingModel:
    """Loads an embedding model, with its heads if its family has them.

    Args:
        source: From ``find_model``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        threads: Torch threads of this process.
        dense_only: Does not load the heads, so that a folder without them can be served.

    Raises:
        ModelLoadError: The weights, the heads or the device are missing.
    """
    source.require(Capability.DENSE)
    check_tokenizer(source.folder)
    place = choose_device(device)
    heads = None
    if Capability.COLBERT in source.profile.capabilities and not dense_only:
        heads = TokenHeads.load(source.folder, source.dimension, place)
    transformer = Transformer(source, device=place, dtype=choose_dtype(dtype, place), threads=threads)
    return EmbeddingModel(transformer, source.pooling, heads)


def load_cross_encoder(
    source: ModelSource, *, device: str = "auto", dtype: str = "auto", threads: int = 1
) -> CrossEncoder:
    """Loads a cross-encoder; arguments and errors as ``load_model``."""
    check_tokenizer(source.folder)
    place = choose_device(device)
    return CrossEncoder(source.folder, device=place, dtype=choose_dtype(dtype, place), threads=threads)
