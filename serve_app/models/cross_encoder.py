"""Reranking by a cross-encoder, which reads query and candidate together, as one pair of texts.

Slower than late interaction, because no computation for a query can be reused. The models served are
XLM-RoBERTa with a classification head of one label (``BAAI/bge-reranker-v2-m3`` and its kind).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from serve_app.domain.embeddings import Int32
from serve_app.domain.errors import ModelLoadError, NonFiniteError, ServiceError
from serve_app.models.backbone.layout import choose_backbone
from serve_app.models.batching.isolation import run_isolated
from serve_app.models.weights import load_weights

_READS_PAIRS = ("xlm-roberta", "roberta")  # BERT's kind also needs token types, and would silently score wrongly


class CrossEncoder:
    """A cross-encoder on one device, with an error for each pair that fails. One caller at a time."""

    def __init__(self, folder: Path, *, device: torch.device, dtype: torch.dtype, threads: int) -> None:
        """Loads the weights of a model folder onto the device.

        Args:
            folder: An ordinary Hugging Face model folder.
            device: Of weights and activations.
            dtype: Of the body's weights and activations. The head computes in float32: in bfloat16, 100 candidates had
                53 distinct scores.
            threads: Torch threads of this process; they matter on a CPU.

        Raises:
            ModelLoadError: Weights are missing, the head's included, or the model is not a reranker.
        """
        from transformers import AutoModelForSequenceClassification

        torch.set_num_threads(threads)
        self.device = device
        self.dtype = dtype
        model = load_weights(AutoModelForSequenceClassification, folder, torch.float32)
        _check_architecture(model, folder)
        body: Any = model.base_model
        self.body = body.to(dtype)
        model.to(device).eval()
        self._backbone = choose_backbone(self.body, device, dtype)
        self._head: Any = model.classifier

    @property
    def dtype_name(self) -> str:
        """The dtype as the settings spell it."""
        return str(self.dtype).removeprefix("torch.")

    def forward(self, pairs: Sequence[Int32]) -> list[float | ServiceError]:
        """Computes one micro-batch. Never raises.

        Args:
            pairs: int32 ``[length]`` token ids of each pair, from ``TextTokenizer.pairs``.

        Returns:
            The logit of each pair, or an error, in order: any real number, larger is better. Its sigmoid
            is the score between 0 and 1 that the model was trained for.
        """
        return run_isolated(self._logits, pairs, release_memory=torch.cuda.empty_cache)  # nothing without CUDA

    @torch.inference_mode()
    def _logits(self, pairs: Sequence[Int32]) -> list[float | ServiceError]:
        output = self._backbone.forward(pairs)
        first = output.states[output.firsts].float()
        logits = self._head(first[:, None])[:, 0].tolist()  # it reads the first token of ``[n, tokens, hidden]``
        return [
            logit if math.isfinite(logit) else NonFiniteError("the model computed no finite score for this text")
            for logit in logits
        ]


def _check_architecture(model: torch.nn.Module, folder: Path) -> None:
    config: Any = model.config
    if config.model_type not in _READS_PAIRS:
        raise ModelLoadError(
            f"{folder} is a cross-encoder of type {config.model_type!r}; served are: {', '.join(_READS_PAIRS)}"
        )
    if config.num_labels != 1:
        raise ModelLoadError(f"{folder} has {config.num_labels} labels; a reranker has 1")
