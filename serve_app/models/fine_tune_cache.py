"""The models of one replica: its own, and fine-tunes that are loaded on demand and unloaded when memory is needed.

Adapters share the weights of their base and cost megabytes; whole fine-tunes are whole models.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Generic

from serve_app.domain.embeddings import ModelVersion
from serve_app.domain.errors import ModelLoadError, ModelNotFoundError, UnavailableError
from serve_app.models.batching.isolation import is_out_of_memory
from serve_app.models.embedder import EmbeddingModel
from serve_app.models.fine_tune_memory import FineTuneMemory, LoadedFineTune, M, OnDevice
from serve_app.models.fine_tunes import FineTune, find_fine_tune
from serve_app.models.heads import TokenHeads
from serve_app.models.model_source import ModelSource, describe
from serve_app.models.weights import count_weights

logger = logging.getLogger(__name__)

_RETRY_S = 30.0  # a fine-tune that could not be loaded is not tried again for so long


class FineTuneCache(Generic[M]):
    """Models by version; lives on one event loop. Callers get an ``M`` of a model."""

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
        """Starts with the replica's own model alone.

        Args:
            name: Of the replica's own model.
            home: The replica's own model; it is never unloaded and not counted.
            models_dir: Folder of the fine-tunes.
            max_bytes: Bound of the weights of all fine-tunes in memory.
            load: Loads a whole model; called in a thread of its own, so that serving continues meanwhile.
            wrap: Makes the ``M`` of a model.
            on_device: Adapters are changed there, because they touch the base's modules.
            clock: Seconds, for how long a load that failed is not tried again.
        """
        self.home = wrap(home)
        self._name = name
        self._home = home
        self._models_dir = models_dir
        self._load_model = load
        self._wrap = wrap
        self._on_device = on_device
        self._clock = clock
        self._memory: FineTuneMemory[M] = FineTuneMemory(
            max_bytes, on_device=on_device, release_memory=home.release_memory
        )
        self._loading: dict[ModelVersion, asyncio.Task[LoadedFineTune[M]]] = {}
        self._failed: dict[ModelVersion, tuple[str, float]] = {}  # the reason, and until when it is not tried again
        self._one_at_a_time = asyncio.Lock()  # two that load at once would take the same room

    @property
    def loaded(self) -> list[ModelVersion]:
        """The fine-tunes in memory."""
        return self._memory.versions

    @asynccontextmanager
    async def use(self, version: ModelVersion | None) -> AsyncIterator[M]:
        """The model, in memory until the block ends; None stands for the replica's own.

        Raises:
            ModelNotFoundError: The fine-tune was deleted, or another one has its name now.
            UnavailableError: It cannot be loaded, or could not half a minute ago, or everything in memory is in use
                and there is no room.
        """
        if version is None:
            yield self.home
            return
        with self._memory.use(await self._get(version)) as served:
            yield served

    async def _get(self, version: ModelVersion) -> LoadedFineTune[M]:
        while (loaded := self._memory.get(version)) is None:
            task = self._loading.get(version)
            if task is None:
                self._check_failure(version)
                task = self._loading[version] = asyncio.ensure_future(self._load(version))
                task.add_done_callback(lambda _: self._loading.pop(version, None))
            await asyncio.shield(task)  # one caller that leaves does not stop the others' load
        return loaded

    async def _load(self, version: ModelVersion) -> LoadedFineTune[M]:
        found = await asyncio.to_thread(find_fine_tune, version.name, self._models_dir)
        if found is None or found.model_version != version:
            raise ModelNotFoundError(f"the fine-tune {version.name!r} is gone; GET /models lists those that are served")
        try:
            loaded = await (self._load_adapter(found) if found.adapter else self._load_whole(found))
        except ModelLoadError as error:
            reason = f"the fine-tune {version.name!r} cannot be loaded: {error.message}"
            raise self._remember_failure(version, reason) from error
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = f"the device has too little memory for the fine-tune {version.name!r}"
            raise self._remember_failure(version, reason) from error
        logger.info("the fine-tune %r is loaded (%.1f MB)", version.name, loaded.bytes / 1e6)
        return loaded

    def _remember_failure(self, version: ModelVersion, reason: str) -> UnavailableError:
        """The error of a failed load, and of requests in the next half a minute: another load may take as long."""
        self._failed[version] = reason, self._clock() + _RETRY_S
        return UnavailableError(reason, retry_after_s=_RETRY_S)

    def _check_failure(self, version: ModelVersion) -> None:
        now = self._clock()
        self._failed = {each: (reason, until) for each, (reason, until) in self._failed.items() if until > now}
        if version in self._failed:
            reason, until = self._failed[version]
            raise UnavailableError(reason, retry_after_s=until - now)

    async def _load_whole(self, found: FineTune) -> LoadedFineTune[M]:
        async with self._one_at_a_time:
            await self._make_room(found)
            source = await asyncio.to_thread(describe, found.name, found.folder)
            model = await asyncio.to_thread(self._load_model, source)
            return self._add(found, model, model.transformer.bytes, None)

    async def _load_adapter(self, found: FineTune) -> LoadedFineTune[M]:
        base = None if found.base == self._name else await self._base_of(found)
        on = base.model if base else self._home
        if base:
            base.in_use += 1  # until the adapter is unloaded
        try:
            async with self._one_at_a_time:
                await self._make_room(found)
                heads = on.heads and await asyncio.to_thread(
                    TokenHeads.load, found.folder, on.heads.hidden_size, on.transformer.device
                )
                adapters = on.transformer.adapters
                handle = await self._on_device(lambda: adapters.load(found.folder))
                model = EmbeddingModel(on.transformer, on.pooling, heads, handle)
                return self._add(found, model, adapters.bytes(handle), base)
        except BaseException:
            if base:
                base.in_use -= 1
            raise

    def _add(
        self, found: FineTune, model: EmbeddingModel, size: int, base: LoadedFineTune[M] | None
    ) -> LoadedFineTune[M]:
        return self._memory.add(found.model_version, LoadedFineTune(model, self._wrap(model), size, base))

    async def _base_of(self, found: FineTune) -> LoadedFineTune[M]:
        base = await asyncio.to_thread(find_fine_tune, found.base, self._models_dir)
        if base is None or base.adapter:
            raise ModelLoadError(f"its base {found.base!r} is not served here")
        return await self._get(base.model_version)

    async def _make_room(self, found: FineTune) -> None:
        """Frees memory for the folder's weights, which may have another dtype there than on disk."""
        numbers = await asyncio.to_thread(count_weights, found.folder)
        await self._memory.make_room(numbers * self._home.transformer.dtype.itemsize)
