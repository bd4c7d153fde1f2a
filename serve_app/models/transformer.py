"""Token ids to pooled vectors on one device: dtype, threads, padding, pooling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from serve_app.domain.embeddings import Float32, Int32
from serve_app.domain.errors import ModelLoadError
from serve_app.domain.profiles import Pooling
from serve_app.models.openmp import wait_passively

wait_passively()

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from serve_app.models.source import ModelSource

_ANY_ID = 1  # under the mask no id matters; 1 is what XLM-RoBERTa derives positions from

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(setting: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU; anything else is taken at its word.

    Raises:
        ModelLoadError: The device is not there, or the setting names none.
    """
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(setting)
    except RuntimeError:
        raise ModelLoadError(f"device {setting!r} is no device; use auto, cpu, cuda or cuda:0") from None
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ModelLoadError(f"device {setting!r} is configured, but {count} CUDA devices are visible to this replica")
    return device


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
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))


class Transformer:
    """An encoder model on one device. Not thread-safe: one caller at a time."""

    def __init__(self, source: ModelSource, *, device: torch.device, dtype: torch.dtype, threads: int) -> None:
        """Loads the weights of ``source.folder`` onto the device.

        Args:
            source: The model, its weights on this machine.
            device: Where to compute.
            dtype: Of weights and activations; pooling and normalisation are always float32.
            threads: Torch threads of this process; they matter on a CPU.

        Raises:
            ModelLoadError: Weights are missing or do not fit the configuration.
        """
        torch.set_num_threads(threads)
        self.device = device
        self.dtype = dtype
        self.pooling = source.pooling
        self.max_tokens = source.max_tokens
        self._model = _load(source, dtype).to(device).eval()

    @torch.inference_mode()
    def embed(self, texts: Sequence[Int32]) -> Float32:
        """Dense vectors of some texts, padded to the longest of them.

        Args:
            texts: int32 ``[length]`` token ids of each text, special tokens included.

        Returns:
            float32 ``[n, dimension]`` on the host, L2-normalised, in the order of the texts. What the
            model computes as NaN or infinity stays so.
        """
        ids, mask = self._pad(texts)
        states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled = states[:, 0].float() if self.pooling is Pooling.CLS else _mean(states, mask)
        vectors: Float32 = functional.normalize(pooled, dim=-1).cpu().numpy()
        return vectors

    def release_memory(self) -> None:
        """Gives cached device memory back, after an out-of-memory error."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _pad(self, texts: Sequence[Int32]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """int64 ids ``[n, longest]`` and bool mask ``[n, longest]`` (None if nothing is padding)."""
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        longest = int(lengths.max())
        filled = np.arange(longest) < lengths[:, None]
        ids = np.full((len(texts), longest), _ANY_ID, np.int64)
        ids[filled] = np.concatenate(texts)
        tensor = torch.from_numpy(ids).to(self.device, non_blocking=True)
        return tensor, None if filled.all() else torch.from_numpy(filled).to(self.device, non_blocking=True)


def _mean(states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """float32 ``[n, hidden]``: the mean of the states ``[n, length, hidden]`` where the mask is true."""
    if mask is None:
        return states.float().mean(dim=1)
    return torch.where(mask[..., None], states.float(), 0.0).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def _load(source: ModelSource, dtype: torch.dtype) -> torch.nn.Module:
    from transformers import AutoModel
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # its load report is read below, not printed
    transformers_logging.disable_progress_bar()
    try:
        model, report = AutoModel.from_pretrained(
            source.folder,
            dtype=dtype,
            attn_implementation="sdpa",
            trust_remote_code=False,
            add_pooling_layer=False,
            output_loading_info=True,
        )
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelLoadError(f"the weights in {source.folder} can not be loaded ({reason})") from error
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would go on with random numbers in their place
        raise ModelLoadError(f"the weights in {source.folder} lack {len(missing)} tensors, among them {missing[0]!r}")
    assert isinstance(model, torch.nn.Module)
    return model
