"""Low-rank adapters, on a float32 base or on one whose layers are quantised to four bits (Q-LoRA).

Hu et al., 2021 (https://arxiv.org/abs/2106.09685); Dettmers et al., 2023 (https://arxiv.org/abs/2305.14314).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from serve_app.jobs.training_spec import NARROWEST_IN_FOUR_BITS, LoraSettings
from serve_app.models.model_source import ModelSource
from training.training_errors import TrainingError

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

LAYERS = ("query", "key", "value", "dense")  # every linear layer of BERT and XLM-RoBERTa, by the end of its name


def add_lora(model: SentenceTransformer, settings: LoraSettings) -> None:
    """Adds a fresh adapter to every linear layer and freezes all other weights.

    The adapter changes nothing yet: one of its two factors starts at zero. The dropout of the encoder itself is
    switched off, because the adapter has its own; on a CPU, drawing it took a third of the time.
    """
    from peft import LoraConfig

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.add_adapter(
        LoraConfig(
            r=settings.r,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=list(LAYERS),
            task_type="FEATURE_EXTRACTION",
        )
    )


def four_bits(source: ModelSource) -> BitsAndBytesConfig:
    """The quantisation of a Q-LoRA base: nf4 weights, their constants quantised again, bfloat16 products.

    Raises:
        TrainingError: bitsandbytes cannot be used here, or the model is too narrow for it.
    """
    if source.dimension % NARROWEST_IN_FOUR_BITS:
        raise TrainingError(
            f"Q-LoRA needs layers whose width is a multiple of {NARROWEST_IN_FOUR_BITS}, and {source.name!r} is "
            f"{source.dimension} wide; use LoRA (use_qlora: false)"
        )
    try:
        import bitsandbytes  # noqa: F401
    except Exception as error:  # its native library may fail in any way
        raise TrainingError(
            f"Q-LoRA needs bitsandbytes, which cannot be loaded here ({type(error).__name__}: {error}); "
            f"use LoRA (use_qlora: false)"
        ) from error
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def loading_options(source: ModelSource, device: torch.device) -> dict[str, Any]:
    """Options of ``build_model`` for a quantised base on the device.

    Raises:
        TrainingError: As ``four_bits``.
    """
    return {"quantization_config": four_bits(source), "device_map": {"": str(device)}}


def keep_layers_trainable(model: SentenceTransformer) -> None:
    """Prevents bitsandbytes from repacking weights; call it before the first forward.

    On a CPU with AVX512-BF16 a quantised layer changes to a layout for inference in the first forward in evaluation
    mode, and no gradient passes it after that.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 - mypy takes it for a submodule
