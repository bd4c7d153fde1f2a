"""The served models by name: the configured ones and their fine-tunes, which are found on disk."""

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

_FRESH_S = 1.0  # a fine-tune that was found is not searched for again earlier
_MAX_DEPTH = 10  # of fine-tunes of fine-tunes

C = TypeVar("C", bound=ReplicaCaller)


def require_free_aliases(aliases: Mapping[str, str], models_dir: Path) -> None:
    """Raises ``ConfigurationError`` if a fine-tune has the name of an alias, which would hide one of them."""
    for alias, name in aliases.items():
        if find_fine_tune(alias, models_dir) is not None:
            raise ConfigurationError(
                f"aliases: {alias!r} of {name!r} is the name of a fine-tune in {models_dir}; choose another alias, or "
                f"delete the fine-tune"
            )


class ModelRegistry(Generic[C]):
    """The models of one kind of deployment; a fine-tune is computed by the deployment of its base."""

    def __init__(
        self, configured: Mapping[str, ServedModel[C]], models_dir: Path, aliases: Mapping[str, str] | None = None
    ) -> None:
        """Takes the configured models by name, the default first, and the model of each alias."""
        self.configured = configured
        self.aliases = aliases or {}
        self._models_dir = models_dir
        self._found: dict[str, tuple[float, ServedModel[C]]] = {}

    async def pick(
        self, name: str | None, needed: frozenset[Capability], what: str, *, others: ModelRegistry[Any] | None = None
    ) -> ServedModel[C]:
        """The model with this name, or the first configured one that has the capabilities.

        Args:
            name: Name in the request; None for the default.
            needed: Capabilities that it must have.
            what: Name of these capabilities in a message.
            others: Models of the other kind of deployment, for the message.

        Raises:
            ModelNotFoundError: No model has this name.
            CapabilityError: The model lacks the capabilities, or all models do.
            UnavailableError: It is a fine-tune whose folder cannot be read.
        """
        capable = [served.source.name for served in self.configured.values() if needed <= served.capabilities]
        if name is None:
            if not capable:
                raise CapabilityError(f"no served model supports {what}")
            return self.configured[capable[0]]
        served = await self._find(name)
        if served is None and not (others and await others.has(name)):
            names = ", ".join(dict.fromkeys([*self.configured, *(others.configured if others else ())]))
            raise ModelNotFoundError(f"no model {shown(name)} is served; these are: {names}, and their fine-tunes")
        if served is None or not needed <= served.capabilities:
            raise CapabilityError(
                f"{shown(name)} does not support {what}; models that do: {', '.join(capable) or 'none'}"
            )
        return served

    async def has(self, name: str) -> bool:
        """Whether there is a model of this name.

        Raises:
            UnavailableError: It is a fine-tune whose folder cannot be read.
        """
        return await self._find(name) is not None

    async def _find(self, name: str) -> ServedModel[C] | None:
        for spelling in spellings(name, self.aliases):
            if served := self.configured.get(spelling) or await self._fine_tune(spelling):
                return served
        return None

    def all(self) -> Iterator[ServedModel[C]]:
        """All models; reads manifests, and the vocabularies of fine-tunes that are new."""
        yield from self.configured.values()
        for found in fine_tunes(self._models_dir):
            if found.name in self.configured:
                continue
            try:
                served = self._served(found)
            except ModelLoadError as error:  # or it was deleted meanwhile
                logger.warning("the fine-tune %r is not listed: %s", found.name, error.message)
                continue
            if served is not None:
                if served is not self._known(found.name):
                    self._found[found.name] = (-math.inf, served)  # stored, but searched for again by the next request
                yield served

    async def _fine_tune(self, name: str) -> ServedModel[C] | None:
        known = self._found.get(name)
        if known and time.monotonic() - known[0] < _FRESH_S:
            return known[1]
        found = await run_io(find_fine_tune, name, self._models_dir)
        try:
            served = await run_io(self._served, found) if found else None
        except ModelLoadError as error:
            logger.warning("the fine-tune %r cannot be read: %s", name, error.message)
            raise UnavailableError(f"the fine-tune {name!r} cannot be read; the log says why") from error
        if served is None:
            self._found.pop(name, None)
        else:
            self._found[name] = (time.monotonic(), served)
        return served

    def _served(self, found: FineTune) -> ServedModel[C] | None:
        """The fine-tune on the deployment of its base; None if the base is not served."""
        known = self._known(found.name)
        if known and known.model_version == found.model_version:
            return known
        host = self._host(found)
        if host is None:
            return None
        base = find_fine_tune(found.base, self._models_dir) if found.adapter else found
        if base is not None and base.adapter:  # an adapter on an adapter, which replicas cannot load
            return None
        if base is None and found.family != (family := host.source.profile.family):
            raise ModelLoadError(
                f"{found.folder / 'manifest.json'} records the family {found.family!r}, but its base "
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
        """The nearest configured ancestor; a whole model can be served by any deployment of its family."""
        ancestor: FineTune | None = found
        for _ in range(_MAX_DEPTH):
            if ancestor is None:
                break
            if ancestor.base in self.configured:
                return self.configured[ancestor.base]
            ancestor = find_fine_tune(ancestor.base, self._models_dir)
        if found.adapter:
            return None
        family = (served for served in self.configured.values() if served.source.profile.family == found.family)
        return next(family, None)
