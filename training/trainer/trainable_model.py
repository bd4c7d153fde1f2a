"""A trainable model: a folder as the service reads it, as a sentence-transformers model."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import AutoModel, PreTrainedModel

from serve_app.jobs.training_spec import TrainingSpec
from serve_app.models.model_source import ModelSource
from serve_app.models.sentence_settings import lowers_case
from serve_app.models.transformer import choose_device, choose_dtype
from serve_app.models.weights import load_weights


@dataclass(frozen=True)
class Compute:
    """Device and dtype of a training.

    Attributes:
        device: Of weights and activations.
        dtype: Of matrix products (autocast). The weights themselves stay float32: updates of a ten-thousandth would
            be lost in bfloat16.
    """

    device: torch.device
    dtype: torch.dtype

    @property
    def mixed(self) -> bool:
        """True if matrix products are computed in less than float32."""
        return self.dtype is not torch.float32

    @property
    def dtype_name(self) -> str:
        """The dtype as the settings spell it."""
        return str(self.dtype).removeprefix("torch.")

    def autocast(self) -> AbstractContextManager[Any]:
        """The context for a forward outside of the trainer, which has its own."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.mixed)


def choose_compute(spec: TrainingSpec, *, gpu: int = 0) -> Compute:
    """The device of the job, and bfloat16 where it computes in it.

    Raises:
        ModelLoadError: The device does not exist.
    """
    setting = spec.device
    if setting == "auto":
        setting = "cuda" if spec.gpus_per_worker > 0 else "cpu"
    device = choose_device(f"cuda:{gpu}" if setting == "cuda" else setting)
    return Compute(device, choose_dtype("auto", device))


class _Encoder(Transformer):
    """The transformer module, with weights read as the service reads them: all of them or none."""

    def _load_model(self, model_name_or_path: str, *_: object, **options: object) -> PreTrainedModel:
        model = load_weights(AutoModel, Path(model_name_or_path), torch.float32, add_pooling_layer=False, **options)
        assert isinstance(model, PreTrainedModel)
        return model


def build_model(source: ModelSource, compute: Compute, *, max_tokens: int, **options: object) -> SentenceTransformer:
    """The model of a folder, in float32, ready to be trained or evaluated.

    Built from parts, because sentence-transformers would guess the pooling of a folder without ``modules.json``.

    Args:
        source: The model, its weights on this machine.
        compute: Where it computes.
        max_tokens: Longer texts are cut; the source's own limit if that is smaller.
        options: Further arguments for loading the weights.

    Raises:
        ModelLoadError: Weights are missing or do not fit the configuration.
    """
    encoder = _Encoder(
        str(source.folder), max_seq_length=min(max_tokens, source.max_tokens), model_kwargs=options,
        do_lower_case=lowers_case(source.folder),
        processor_kwargs={"local_files_only": True, "padding_side": "right"},  # as in serving
    )  # fmt: skip
    parts = [encoder, Pooling(source.dimension, pooling_mode=source.pooling.value), Normalize()]
    return SentenceTransformer(modules=parts, device=str(compute.device))


def encoder_of(model: SentenceTransformer) -> PreTrainedModel:
    """The transformers model inside."""
    encoder = model[0].model
    assert isinstance(encoder, PreTrainedModel)
    return encoder


def freeze_embeddings(model: SentenceTransformer) -> None:
    """Keeps the word embeddings as they are."""
    encoder_of(model).get_input_embeddings().requires_grad_(False)
