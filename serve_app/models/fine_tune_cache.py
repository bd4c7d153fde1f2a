"""The models of one replica: its own, and fine-tunes that come on demand and go when memory is needed.

Adapters share the weights of their base and cost megabytes; whole fine-tunes are whole models. The least
recently used ones go first, never one that is at work.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from serve_app.domain.embeddings import ModelVersion
from serve_app.domain.errors import ModelLoadError, ModelNotFoundError, UnavailableError
from serve_app.models.batching.isolation import is_out_of_memory
from serve_app.models.embedder import EmbeddingModel
from serve_app.models.fine_tunes import FineTune, find_fine_tune
from serve_app.models.heads import TokenHeads
from serve_app.models.model_source import ModelSource, describe
from serve_app.models.weights import count_weights

logger = logging.getLogger(__name__)

_RETRY_S = 30.0  # a fine-tune that could not be loaded is not tried again for so long

M = TypeVar("M")
S = TypeVar("S")


class OnDevice(Protocol):
    """Runs a function where forwards run, and so never during one."""

    def __call__(self, function: Callable[[], S], /) -> Awaitable[S]:
        """Its result."""
        ...


@dataclass(eq=False)
class _Slot(Generic[M]):
    """One fine-tune in memory."""

    model: EmbeddingModel
    served: M
    bytes: int
    base: _Slot[M] | None  # kept in memory by an adapter on it
    in_use: int = 0
    last_used: int = 0


class FineTuneCache(Generic[M]):
    """Models by variant; lives on one event loop. ``M`` is what callers get of a model."""

    def __init__(
        self,
        name: str,
        home: EmbeddingModel,
        *,
        models_dir: Path,
        max_bytes: int,
        load: Callable[[ModelSource], EmbeddingModel],
        wrap: Callable[[EmbeddingModel], M],
        on_device: OnDevice,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Puts the parts together.

        Args:
            name: Of the replica's own model.
            home: The replica's own model; it is never unloaded and not counted.
            models_dir: Where fine-tunes are.
            max_bytes: Bound of the weights of all fine-tunes in memory.
            load: Loads a whole model; called in a thread of its own, so that serving goes on meanwhile.
            wrap: Makes what callers get.
            on_device: Adapters are changed there, because they touch the base's modules.
            clock: Seconds, for how long a load that failed is not tried again.
        """
        self.home = wrap(home)
        self._name = name
        self._home = home
        self._models_dir = models_dir
        self._max_bytes = max_bytes
        self._load = load
        self._wrap = wrap
        self._on_device = on_device
        self._clock = clock
        self._slots: dict[ModelVersion, _Slot[M]] = {}
        self._loading: dict[ModelVersion, asyncio.Task[_Slot[M]]] = {}
        self._failed: dict[
            ModelVersion, tuple[str, float]
        ] = {}  # why it could not be loaded, and until when that counts
        self._one_at_a_time = asyncio.Lock()  # two that load at once would take the same room
        self._uses = 0

    @property
    def loaded(self) -> list[ModelVersion]:
        """The fine-tunes in memory."""
        return list(self._slots)

    @asynccontextmanager
    async def use(self, variant: ModelVersion | None) -> AsyncIterator[M]:
        """The model, in memory until the block ends.

        Raises:
            ModelNotFoundError: The fine-tune is gone, or another one has its name now.
            UnavailableError: It cannot be loaded, or could not half a minute ago, or everything in memory is at work
                and there is no room.
        """
        if variant is None:
            yield self.home
            return
        slot = await self._slot(variant)
        slot.in_use += 1
        self._uses += 1
        slot.last_used = self._uses
        try:
            yield slot.served
        finally:
            slot.in_use -= 1

    async def _slot(self, variant: ModelVersion) -> _Slot[M]:
        while (slot := self._slots.get(variant)) is None:
            task = self._loading.get(variant)
            if task is None:
                self._check_failure(variant)
                task = self._loading[variant] = asyncio.ensure_future(self._bring(variant))
                task.add_done_callback(lambda _: self._loading.pop(variant, None))
            await asyncio.shield(task)  # one caller that leaves does not stop the others' load
        return slot

    async def _bring(self, variant: ModelVersion) -> _Slot[M]:
        found = await asyncio.to_thread(find_fine_tune, variant.name, self._models_dir)
        if found is None or found.variant != variant:
            raise ModelNotFoundError(f"the fine-tune {variant.name!r} is gone; GET /models lists those that are served")
        try:
            slot = await (self._bring_adapter(found) if found.adapter else self._bring_model(found))
        except ModelLoadError as error:
            why = f"the fine-tune {variant.name!r} can not be loaded: {error.message}"
            raise self._failure(variant, why) from error
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            why = f"the device has too little memory for the fine-tune {variant.name!r}"
            raise self._failure(variant, why) from error
        logger.info("the fine-tune %r is in memory (%.1f MB)", variant.name, slot.bytes / 1e6)
        return slot

    def _failure(self, variant: ModelVersion, why: str) -> UnavailableError:
        """The error of a load that failed, and of requests in the next half a minute: a load may take as long."""
        self._failed[variant] = why, self._clock() + _RETRY_S
        return UnavailableError(why, retry_after_s=_RETRY_S)

    def _check_failure(self, variant: ModelVersion) -> None:
        now = self._clock()
        self._failed = {each: (why, until) for each, (why, until) in self._failed.items() if until > now}
        if variant in self._failed:
            why, until = self._failed[variant]
            raise UnavailableError(why, retry_after_s=until - now)

    async def _bring_model(self, found: FineTune) -> _Slot[M]:
        async with self._one_at_a_time:
            await self._make_room(await asyncio.to_thread(self._size_of, found.folder))
            source = await asyncio.to_thread(describe, found.name, found.folder)
            model = await asyncio.to_thread(self._load, source)
            slot = self._slots[found.variant] = _Slot(model, self._wrap(model), model.transformer.bytes, None)
            return slot

    async def _bring_adapter(self, found: FineTune) -> _Slot[M]:
        base = None if found.base == self._name else await self._base_of(found)
        on = base.model if base else self._home
        if base:
            base.in_use += 1  # until the adapter goes
        try:
            async with self._one_at_a_time:
                await self._make_room(await asyncio.to_thread(self._size_of, found.folder))
                heads = on.heads and await asyncio.to_thread(
                    TokenHeads.load, found.folder, on.heads.hidden_size, on.transformer.device
                )
                adapters = on.transformer.adapters
                handle = await self._on_device(lambda: adapters.load(found.folder))
                model = EmbeddingModel(on.transformer, on.pooling, heads, handle)
                slot = self._slots[found.variant] = _Slot(model, self._wrap(model), adapters.bytes(handle), base)
                return slot
        except BaseException:
            if base:
                base.in_use -= 1
            raise

    async def _base_of(self, found: FineTune) -> _Slot[M]:
        base = await asyncio.to_thread(find_fine_tune, found.base, self._models_dir)
        if base is None or base.adapter:
            raise ModelLoadError(f"its base {found.base!r} is not served here")
        return await self._slot(base.variant)

    def _size_of(self, folder: Path) -> int:
        """Bytes of a folder's weights in memory, where they may have another dtype than on disk."""
        return count_weights(folder) * self._home.transformer.dtype.itemsize

    async def _make_room(self, wanted: int) -> None:
        """Takes fine-tunes out of memory until this many bytes fit."""
        if wanted > self._max_bytes:
            raise UnavailableError(
                f"it takes {wanted / 2**30:.2f} GiB and the bound of fine-tunes in memory is "
                f"{self._max_bytes / 2**30:.2f} GiB; raise max_fine_tunes_gib"
            )
        while sum(slot.bytes for slot in self._slots.values()) + wanted > self._max_bytes:
            idle = [variant for variant, slot in self._slots.items() if slot.in_use == 0]
            if not idle:
                raise UnavailableError("the memory for fine-tunes is full of models at work; try again in a moment")
            await self._drop(min(idle, key=lambda variant: self._slots[variant].last_used))

    async def _drop(self, variant: ModelVersion) -> None:
        slot = self._slots.pop(variant)
        if slot.base is not None:
            slot.base.in_use -= 1
        logger.info("the fine-tune %r leaves memory", variant.name)
        if slot.model.adapter is not None:
            await self._on_device(partial(slot.model.transformer.adapters.unload, slot.model.adapter))
        del slot  # before, or its memory would not be among what is given back
        self._home.release_memory()
