"""Which model a request means: a configured one, or a fine-tune of one, found on disk by its name."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from serve_app.domain.errors import (
    CapabilityError,
    ConfigurationError,
    ModelLoadError,
    ModelNotFoundError,
    UnavailableError,
)
from serve_app.domain.executors import run_io
from serve_app.domain.model_names import shown, spellings
from serve_app.domain.profiles import Capability
from serve_app.inference.replica_caller import ReplicaCaller
from serve_app.inference.served_model import ServedModel
from serve_app.models.fine_tunes import FineTune, find_fine_tune, fine_tunes
from serve_app.models.model_source import describe

logger = logging.getLogger(__name__)

_FRESH_S = 1.0  # a fine-tune that was found is not looked for again so soon
_DEEPEST = 10  # fine-tunes of fine-tunes

C = TypeVar("C", bound=ReplicaCaller)


def require_free_aliases(aliases: Mapping[str, str], models_dir: Path) -> None:
    """Raises ``ConfigurationError`` if a fine-tune has the name of an alias: one of them could not be reached."""
    for alias, name in aliases.items():
        if find_fine_tune(alias, models_dir) is not None:
            raise ConfigurationError(
                f"aliases: {alias!r} of {name!r} is the name of a fine-tune in {models_dir}; choose another alias, or "
                f"delete the fine-tune"
            )


class ModelRegistry(Generic[C]):
    """The models of one kind of deployment. A fine-tune is computed by the deployment of the model it comes from."""

    def __init__(
        self, configured: Mapping[str, ServedModel[C]], models_dir: Path, aliases: Mapping[str, str] | None = None
    ) -> None:
        """Takes the configured models, by name, the default first; and the model of each alias, of others too."""
        self.configured = configured
        self.aliases = aliases or {}
        self._models_dir = models_dir
        self._found: dict[str, tuple[float, ServedModel[C]]] = {}

    async def pick(
        self, name: str | None, needed: frozenset[Capability], what: str, *, others: ModelRegistry[Any] | None = None
    ) -> ServedModel[C]:
        """The model with this name, or the first configured one that can.

        Args:
            name: What the client said; None for the default.
            needed: What it must be able to do.
            what: How a sentence calls this.
            others: Models that are served for something else.

        Raises:
            ModelNotFoundError: No such name.
            CapabilityError: The model can not do it, or none can.
            UnavailableError: It is a fine-tune whose folder can not be read.
        """
        able = [served.source.name for served in self.configured.values() if needed <= served.capabilities]
        if name is None:
            if not able:
                raise CapabilityError(f"none of the served models does {what}")
            return self.configured[able[0]]
        served = await self._find(name)
        if served is None and not (others and await others.has(name)):
            names = ", ".join(dict.fromkeys([*self.configured, *(others.configured if others else ())]))
            raise ModelNotFoundError(f"no model {shown(name)} is served; these are: {names}, and their fine-tunes")
        if served is None or not needed <= served.capabilities:
            raise CapabilityError(f"{shown(name)} does not do {what}; these models do: {', '.join(able) or 'none'}")
        return served

    async def has(self, name: str) -> bool:
        """Whether there is a model of this name.

        Raises:
            UnavailableError: It is a fine-tune whose folder can not be read.
        """
        return await self._find(name) is not None

    async def _find(self, name: str) -> ServedModel[C] | None:
        for spelling in spellings(name, self.aliases):
            if served := self.configured.get(spelling) or await self._fine_tune(spelling):
                return served
        return None

    def all(self) -> Iterator[ServedModel[C]]:
        """Every model; reads manifests, and the vocabularies of fine-tunes that were not seen yet."""
        yield from self.configured.values()
        for found in fine_tunes(self._models_dir):
            if found.name in self.configured:
                continue
            try:
                served = self._served(found)
            except ModelLoadError as error:  # or it was deleted this very moment
                logger.warning("the fine-tune %r is not listed: %s", found.name, error.message)
                continue
            if served is not None:
                if served is not self._known(found.name):
                    self._found[found.name] = (-math.inf, served)  # kept, but looked for again by the next request
                yield served

    async def _fine_tune(self, name: str) -> ServedModel[C] | None:
        known = self._found.get(name)
        if known and time.monotonic() - known[0] < _FRESH_S:
            return known[1]
        found = await run_io(find_fine_tune, name, self._models_dir)
        try:
            served = await run_io(self._served, found) if found else None
        except ModelLoadError as error:
            logger.warning("the fine-tune %r can not be read: %s", name, error.message)
            raise UnavailableError(f"the fine-tune {name!r} can not be read; the log says why") from error
        if served is None:
            self._found.pop(name, None)
        else:
            self._found[name] = (time.monotonic(), served)
        return served

    def _served(self, found: FineTune) -> ServedModel[C] | None:
        """The fine-tune at its host; None if the model that it comes from is not served."""
        known = self._known(found.name)
        if known and known.variant == found.variant:
            return known
        host = self._host(found)
        if host is None:
            return None
        base = find_fine_tune(found.base, self._models_dir) if found.adapter else found
        if base is not None and base.adapter:  # an adapter on an adapter: replicas have no such thing
            return None
        if base is None and found.family != (family := host.source.profile.family):
            raise ModelLoadError(
                f"{found.folder / 'manifest.json'} says that it was trained as {found.family!r}, and its base "
                f"{host.source.name!r} is served as {family!r}; set `family: {found.family}` there, or train again"
            )
        source = host.source if base is None else describe(found.name, base.folder, family=found.family)
        return ServedModel(
            replace(source, name=found.name),
            host.capabilities,
            host.caller,
            found,
            max_backlog_tokens=host.max_backlog_tokens,
            batch_tokens=host.batch_tokens,
        )

    def _known(self, name: str) -> ServedModel[C] | None:
        found = self._found.get(name)
        return found[1] if found else None

    def _host(self, found: FineTune) -> ServedModel[C] | None:
        """The nearest configured ancestor; a whole model can do with any of its family."""
        ancestor: FineTune | None = found
        for _ in range(_DEEPEST):
            if ancestor is None:
                break
            if ancestor.base in self.configured:
                return self.configured[ancestor.base]
            ancestor = find_fine_tune(ancestor.base, self._models_dir)
        if found.adapter:
            return None
        family = (served for served in self.configured.values() if served.source.profile.family == found.family)
        return next(family, None)
