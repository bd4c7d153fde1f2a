"""Models for the cache that compute nothing; their folders determine their size, a gate the end of their load."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.numpy import save_file

from serve_app.domain.errors import ModelLoadError
from serve_app.domain.profiles import Pooling
from serve_app.models.embedder import EmbeddingModel
from serve_app.models.fine_tune_cache import FineTuneCache
from serve_app.models.model_source import ModelSource
from serve_app.models.weights import count_weights
from tests.unit.models.fine_tune_examples import write_manifest

S = TypeVar("S")

HOME = "e5-home"
PATIENCE_S = 10.0


class FakeAdapters:
    """Adapters of one fake transformer; a folder without an ``adapter_config.json`` holds none."""

    def __init__(self) -> None:
        self.loaded: dict[str, Path] = {}
        self._numbers = 0

    def load(self, folder: Path) -> str:
        if not (folder / "adapter_config.json").exists():
            raise ModelLoadError(f"no adapter in {folder}")
        self._numbers += 1
        self.loaded[handle := f"{folder.name} {self._numbers}"] = folder
        return handle

    def unload(self, handle: str) -> None:
        del self.loaded[handle]

    def bytes(self, handle: str) -> int:
        return size_of(self.loaded[handle])


class FakeTransformer:
    """The part of a model that the cache uses: its size and its adapters."""

    device = torch.device("cpu")
    dtype = torch.uint8

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bytes = size_of(folder)
        self.adapters = FakeAdapters()
        self.released: list[Callable[[], Any]] = []

    def release_memory(self) -> None:
        for look in self.released:
            look()


def size_of(folder: Path) -> int:
    return count_weights(folder)  # of one byte each


def write_weights(path: Path, size: int) -> None:
    save_file({"weight": np.zeros(size, np.uint8)}, path)


class Workshop:
    """A cache with its environment.

    Attributes:
        cache: The cache; callers get the models themselves.
        loads: Names of the whole models whose loading began.
        on_device: Counts what was run where forwards run.
        gate: Closed, a load in its thread waits for it.
        failure: What the next loads raise.
        now_s: The time on the cache's clock.
    """

    def __init__(self, models_dir: Path, *, max_bytes: int = 10**6) -> None:
        self.models_dir = models_dir
        self.loads: list[str] = []
        self._begun: queue.Queue[str] = queue.Queue()
        self.on_device = 0
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.now_s = 0.0
        self.home = self._model(models_dir / HOME)
        self.cache: FineTuneCache[EmbeddingModel] = FineTuneCache(
            HOME,
            self.home,
            models_dir=models_dir,
            max_bytes=max_bytes,
            load=self._load,
            wrap=lambda model: model,
            on_device=self._run,
            clock=lambda: self.now_s,
        )

    def full(self, name: str, size: int = 100, *, base: str = HOME, job_id: str = "job-1") -> None:
        """Puts a whole fine-tune of ``size`` bytes on disk."""
        folder = write_manifest(self.models_dir / name, base=base, kind="full", job_id=job_id)
        (folder / "config.json").write_text('{"model_type": "bert", "hidden_size": 8}')
        (folder / "tokenizer.json").write_text("{}")
        write_weights(folder / "model.safetensors", size)

    def adapter(self, name: str, size: int = 10, *, base: str = HOME, job_id: str = "job-1") -> None:
        """Puts an adapter of ``size`` bytes on disk."""
        folder = write_manifest(self.models_dir / name, base=base, job_id=job_id)
        (folder / "adapter_config.json").write_text("{}")
        write_weights(folder / "adapter_model.safetensors", size)

    @property
    def in_memory(self) -> list[str]:
        """The names of the fine-tunes in memory."""
        return sorted(model_version.name for model_version in self.cache.loaded)

    async def until_loading(self, name: str) -> None:
        """Waits until the load of this whole model has begun."""
        while await asyncio.to_thread(self._begun.get, timeout=PATIENCE_S) != name:
            pass

    def _load(self, source: ModelSource) -> EmbeddingModel:
        assert threading.current_thread() is not threading.main_thread(), "the event loop stands still"
        self.loads.append(source.name)
        self._begun.put(source.name)
        assert self.gate.wait(PATIENCE_S)
        if self.failure is not None:
            raise self.failure
        return self._model(source.folder)

    def _model(self, folder: Path) -> EmbeddingModel:
        return EmbeddingModel(FakeTransformer(folder), Pooling.MEAN)  # type: ignore[arg-type]

    def _run(self, function: Callable[[], S]) -> Awaitable[S]:
        self.on_device += 1
        return asyncio.to_thread(function)
