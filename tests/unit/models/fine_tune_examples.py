"""Fine-tunes of the tiny models on disk, as a training leaves them; their weights are random."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

LAYERS = ("query", "key", "value", "dense")


def write_manifest(
    folder: Path,
    *,
    base: str,
    family: str = "e5",
    kind: str = "lora",
    job_id: str = "job-1",
    created: str = "2026-01-02T03:04:05+00:00",
) -> Path:
    """Makes a fine-tune of a folder, as ``training.publication`` does; the folder is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {
        "name": folder.name,
        "family": family,
        "base": base,
        "kind": kind,
        "adapter": kind != "full",
        "job_id": job_id,
        "created": created,
        "metrics": {"before": {"mrr@10": 0.5}, "after": {"mrr@10": 0.75}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def build_adapter(
    folder: Path, base: Path, *, seed: int = 0, rank: int = 4, layers: Sequence[str] = LAYERS, family: str = "e5"
) -> Path:
    """Writes an adapter that changes the vectors of its base a lot. Takes a fifth of a second."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModel

    model = AutoModel.from_pretrained(base)
    model.add_adapter(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(layers)))
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:  # a fresh adapter changes nothing: one of its factors is zero
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draw))
    model.save_pretrained(folder)
    return write_manifest(folder, base=base.name, family=family)


def build_full(folder: Path, base: Path, *, seed: int = 0, family: str = "e5") -> Path:
    """Writes a whole model of other weights than its base."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, folder)
    path = folder / "model.safetensors"
    draw = torch.Generator().manual_seed(seed)
    state = {name: w + 0.05 * torch.randn(w.shape, generator=draw) for name, w in load_file(path).items()}
    save_file(state, path, metadata={"format": "pt"})
    return write_manifest(folder, base=base.name, family=family, kind="full")
