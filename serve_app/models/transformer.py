"""Token ids to hidden states on one device: dtype, threads, padded or packed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from serve_app.domain.embeddings import Int32
from serve_app.domain.errors import ModelLoadError
from serve_app.models.adapters import Adapters
from serve_app.models.backbone.encoder_output import EncoderOutput
from serve_app.models.backbone.layout import choose_backbone
from serve_app.models.weights import load_weights

if TYPE_CHECKING:
    from serve_app.models.model_source import ModelSource

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(setting: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU; anything else is the device itself.

    Raises:
        ModelLoadError: The device does not exist.
    """
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(setting)
    except RuntimeError:
        raise ModelLoadError(f"device {setting!r} is unknown; use auto, cpu, cuda or cuda:0") from None
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ModelLoadError(f"device {setting!r} cannot be used: {_missing_cuda(count)}, or set `device: cpu`")
    return device


def _missing_cuda(count: int) -> str:
    """The reason for a missing CUDA device, and the next step."""
    if torch.version.cuda is None:
        return f"this PyTorch ({torch.__version__}) is built without CUDA; install one that is built with it"
    if count == 0:
        return (
            f"PyTorch {torch.__version__} sees no GPU; it needs a driver for CUDA {torch.version.cuda} or newer (the "
            f"first line of nvidia-smi shows the driver's); update the driver"
        )
    return f"{count} CUDA devices are visible to this replica; give it another one"


def choose_dtype(setting: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 where the hardware computes in it, else float32.

    Emulated bfloat16 (older GPUs, CPUs with plain AVX2) is slower than float32, so it is not chosen.
    """
    if setting != "auto":
        return DTYPES[setting]
    on_gpu = device.type == "cuda"
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else _cpu_has_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def _cpu_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return computes_in_bfloat16(flags, torch.backends.cpu.get_cpu_capability())


def computes_in_bfloat16(flags: str, capability: str) -> bool:
    """True if a CPU with these flags computes bfloat16 in hardware.

    Args:
        flags: ``/proc/cpuinfo``.
        capability: What PyTorch uses of it. ``ATEN_CPU_CAPABILITY`` may rule out AVX512, and then PyTorch 2.13 has no
            bfloat16 attention on a CPU with AMX.
    """
    if "avx512_bf16" in flags or "amx_bf16" in flags:
        return capability.startswith("AVX512")
    return " bf16" in flags  # Arm


class Transformer:
    """An encoder model on one device. Not thread-safe: one caller at a time."""

    def __init__(
        self, source: ModelSource, *, device: torch.device, dtype: torch.dtype, threads: int, packed: bool | None = None
    ) -> None:
        """Loads the weights of ``source.folder`` onto the device.

        Args:
            source: The model, its weights on this machine.
            device: Of weights and activations.
            dtype: Of weights and activations; the heads compute in float32.
            threads: Torch threads of this process; they matter on a CPU.
            packed: As for ``choose_backbone``.

        Raises:
            ModelLoadError: Weights are missing or do not fit the configuration.
        """
        from transformers import AutoModel

        torch.set_num_threads(threads)
        self.device = device
        self.dtype = dtype
        model = load_weights(AutoModel, source.folder, dtype, add_pooling_layer=False)
        self._model = model.to(device).eval()
        self._backbone = choose_backbone(self._model, device, dtype, packed=packed)
        self.adapters = Adapters(self._model)

    @property
    def dtype_name(self) -> str:
        """The dtype as the settings spell it."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def bytes(self) -> int:
        """Memory of the weights."""
        return sum(p.numel() * p.element_size() for p in self._model.parameters())

    @torch.inference_mode()
    def hidden(self, texts: Sequence[Int32], adapter: str | None = None) -> EncoderOutput:
        """States of some texts.

        Args:
            texts: int32 ``[length]`` token ids of each text, special tokens included.
            adapter: One of ``adapters``, to be applied; None for the base alone.
        """
        self.adapters.use(adapter)
        return self._backbone.forward(texts)

    def release_memory(self) -> None:
        """Releases cached device memory, after an out-of-memory error."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
