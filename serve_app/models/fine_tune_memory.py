"""The fine-tunes in one replica's memory, within a bound: the least recently used idle one is unloaded first."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

from serve_app.domain.embeddings import ModelVersion
from serve_app.domain.errors import UnavailableError
from serve_app.models.embedder import EmbeddingModel

logger = logging.getLogger(__name__)

M = TypeVar("M")
S = TypeVar("S")


class OnDevice(Protocol):
    """Runs a function where forwards run, and so never during one."""

    def __call__(self, function: Callable[[], S], /) -> Awaitable[S]:
        """Returns the result of the function."""
        ...


@dataclass(eq=False)
class LoadedFineTune(Generic[M]):
    """One fine-tune in memory.

    Attributes:
        model: The model.
        served: The form of it that callers get.
        bytes: Size of its own weights; an adapter shares those of its base.
        base: The fine-tune that an adapter is loaded on; None for the replica's own model.
        in_use: Callers and adapters that need it now.
        last_used: Number of the last use, counted over all fine-tunes.
    """

    model: EmbeddingModel
    served: M
    bytes: int
    base: LoadedFineTune[M] | None
    in_use: int = 0
    last_used: int = 0


class FineTuneMemory(Generic[M]):
    """Loaded fine-tunes by version; lives on one event loop."""

    def __init__(self, max_bytes: int, *, on_device: OnDevice, release_memory: Callable[[], None]) -> None:
        """Starts empty.

        Args:
            max_bytes: Bound of the weights of all fine-tunes.
            on_device: Adapters are unloaded there, because they touch the base's modules.
            release_memory: Returns cached memory to the device.
        """
        self._max_bytes = max_bytes
        self._on_device = on_device
        self._release_memory = release_memory
        self._loaded: dict[ModelVersion, LoadedFineTune[M]] = {}
        self._uses = 0

    @property
    def versions(self) -> list[ModelVersion]:
        """The fine-tunes in memory."""
        return list(self._loaded)

    def get(self, version: ModelVersion) -> LoadedFineTune[M] | None:
        """The fine-tune, if it is in memory."""
        return self._loaded.get(version)

    def add(self, version: ModelVersion, loaded: LoadedFineTune[M]) -> LoadedFineTune[M]:
        """Adds a fine-tune for which ``make_room`` has found room."""
        self._loaded[version] = loaded
        return loaded

    @contextmanager
    def use(self, loaded: LoadedFineTune[M]) -> Iterator[M]:
        """Keeps a fine-tune in memory until the block ends."""
        loaded.in_use += 1
        self._uses += 1
        loaded.last_used = self._uses
        try:
            yield loaded.served
        finally:
            loaded.in_use -= 1

    async def make_room(self, needed: int) -> None:
        """Unloads fine-tunes until this many bytes fit.

        Raises:
            UnavailableError: The bound is smaller, or the rest is in use.
        """
        if needed > self._max_bytes:
            raise UnavailableError(
                f"it takes {needed / 2**30:.2f} GiB, more than the bound of fine-tunes in memory, "
                f"{self._max_bytes / 2**30:.2f} GiB; raise max_fine_tunes_gib"
            )
        while sum(loaded.bytes for loaded in self._loaded.values()) + needed > self._max_bytes:
            idle = [version for version, loaded in self._loaded.items() if loaded.in_use == 0]
            if not idle:
                raise UnavailableError("the memory for fine-tunes is full of models in use; try again in a moment")
            await self._unload(min(idle, key=lambda version: self._loaded[version].last_used))

    async def _unload(self, version: ModelVersion) -> None:
        loaded = self._loaded.pop(version)
        if loaded.base is not None:
            loaded.base.in_use -= 1
        logger.info("the fine-tune %r is unloaded", version.name)
        if loaded.model.adapter is not None:
            await self._on_device(partial(loaded.model.transformer.adapters.unload, loaded.model.adapter))
        del loaded  # first, so that its memory is among what is released
        self._release_memory()
