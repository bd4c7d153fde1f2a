"""A model as an ingress replica knows it: its card, its tokenizer, the way to its replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from serve_app.api.gateway import CallOptions, ModelState
from serve_app.deployments.calls import ReplicaCaller
from serve_app.deployments.metrics import IngressMetrics
from serve_app.domain.errors import CapabilityError, InvalidInputError, ModelNotFoundError
from serve_app.domain.profiles import Capability, TextRole
from serve_app.models.source import ModelSource
from serve_app.models.tokenizer import TextTokenizer, Tokenised

_INLINE_CHARS = 4000  # about half a millisecond of tokenising; more goes to a thread

C = TypeVar("C", bound=ReplicaCaller)


class Served(Generic[C]):
    """One model and its deployment."""

    def __init__(self, source: ModelSource, capabilities: frozenset[Capability], caller: C) -> None:
        """Reads the tokenizer.

        Args:
            source: The model's card.
            capabilities: What this deployment computes, which may be less than its family does.
            caller: Calls its replicas.
        """
        self.source = source
        self.capabilities = capabilities
        self.caller = caller
        self.tokenizer = TextTokenizer(source.folder, source.max_tokens)

    def state(self) -> ModelState:
        """The model as an operator sees it."""
        replica = self.caller.state
        return ModelState(
            name=self.source.name,
            family=self.source.profile.family,
            dimension=self.source.dimension,
            max_tokens=self.source.max_tokens,
            device=replica.device if replica else None,
            dtype=replica.dtype if replica else None,
            capabilities=[c.value for c in Capability if c in self.capabilities],
        )

    async def tokenise(self, texts: Sequence[str], role: TextRole) -> Tokenised:
        """Token ids of the texts, formatted as the model's family wants them; long work is done in a thread."""
        formatted = [self.source.profile.format(role, text) for text in texts]
        if sum(map(len, formatted)) <= _INLINE_CHARS:
            return self.tokenizer(formatted)
        return await asyncio.to_thread(self.tokenizer, formatted)

    async def tokenise_pairs(self, query: str, candidates: Sequence[str]) -> Tokenised:
        """Token ids of the query with each candidate."""
        return await asyncio.to_thread(self.tokenizer.pairs, query, candidates)


def pick(
    models: Mapping[str, Served[C]],
    name: str | None,
    needed: frozenset[Capability],
    what: str,
    *,
    others: Collection[str] = (),
) -> Served[C]:
    """The model with this name, or the first one that can.

    Args:
        models: Those that are configured for it, by name.
        name: What the client said; None for the default.
        needed: What it must be able to do.
        what: How a sentence calls this.
        others: Names that are served, but for something else.

    Raises:
        ModelNotFoundError: No such name.
        CapabilityError: The model can not do it, or none can.
    """
    able = [served.source.name for served in models.values() if needed <= served.capabilities]
    if name is None:
        if not able:
            raise CapabilityError(f"none of the served models does {what}")
        return models[able[0]]
    served = models.get(name)
    if served is None and name not in others:
        names = dict.fromkeys([*models, *others])
        raise ModelNotFoundError(f"no model {name!r} is served; these are: {', '.join(names)}")
    if served is None or name not in able:
        raise CapabilityError(
            f"{name!r} does not do {what}; of the served models these do: {', '.join(able) or 'none'}"
        )
    return served


def refuse_long(tokens: Tokenised, options: CallOptions, *, first: int = 0) -> list[int]:
    """Indices of the texts that were cut, for the reply.

    Args:
        tokens: Of all texts.
        options: Whether cutting is allowed.
        first: The index of the first text.

    Raises:
        InvalidInputError: A text was cut and the client wants none to be.
    """
    cut = tokens.truncated
    if cut and not options.truncate:
        raise InvalidInputError(
            f"{tokens.full_lengths[cut[0]]} tokens, the model's limit is {tokens.lengths[cut[0]]}; "
            f"shorten the text, or send truncate: true to have it cut",
            item=cut[0] + first,
        )
    return [i + first for i in cut]


def count(metrics: IngressMetrics, parts: Iterable[Tokenised]) -> int:
    """Adds texts, tokens and cuts to the metrics; the number of tokens."""
    tokens = 0
    for part in parts:
        metrics.texts += len(part.lengths)
        metrics.truncated += len(part.truncated)
        tokens += len(part.ids)
    metrics.tokens += tokens
    return tokens
