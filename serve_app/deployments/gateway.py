"""The gateway behind the routes: format, tokenise, encode, and name the text at fault."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from serve_app.api.gateway import Embedded, ModelState
from serve_app.deployments.client import EncoderClient
from serve_app.deployments.metrics import IngressMetrics
from serve_app.domain.embeddings import ItemFailure
from serve_app.domain.errors import (
    InvalidInputError,
    ModelNotFoundError,
    QueueFullError,
    ServiceError,
    error_of,
)
from serve_app.domain.profiles import TextRole
from serve_app.models.source import ModelSource
from serve_app.models.tokenizer import TextTokenizer, Tokenised

_INLINE_CHARS = 4000  # about half a millisecond of tokenising; more goes to a thread


class ServedModel:
    """What the ingress holds of a model: its card, its tokenizer, the way to its encoder."""

    def __init__(self, source: ModelSource, client: EncoderClient) -> None:
        """Reads the tokenizer."""
        self.source = source
        self.client = client
        self.tokenizer = TextTokenizer(source.folder, source.max_tokens)

    def state(self) -> ModelState:
        """The model as an operator sees it."""
        encoder = self.client.state
        return ModelState(
            name=self.source.name,
            family=self.source.profile.family,
            dimension=self.source.dimension,
            max_tokens=self.source.max_tokens,
            device=encoder.device if encoder else None,
            dtype=encoder.dtype if encoder else None,
        )


class ServeGateway:
    """Implements ``api.gateway.Gateway`` on deployment handles."""

    def __init__(self, models: Mapping[str, ServedModel], metrics: IngressMetrics) -> None:
        """Takes the served models, the default one first."""
        self._models = models
        self._metrics = metrics

    async def embed(
        self, texts: Sequence[str], role: TextRole, *, model: str | None, truncate: bool, timeout_s: float
    ) -> Embedded:
        """See ``Gateway.embed``."""
        served = self._find(model)
        began = time.monotonic()
        tokens = await self._tokenise(served, texts, role)
        truncated = tokens.truncated
        if truncated and not truncate:
            raise _too_long(tokens, truncated[0])
        tokenised = time.monotonic()
        self._metrics.texts += len(texts)
        self._metrics.tokens += len(tokens.ids)
        self._metrics.truncated += len(truncated)
        left_s = timeout_s - (tokenised - began)
        answer = await served.client.encode(tokens.batch(), timeout_s=max(left_s, 0.0))
        self._metrics.observe(tokenised - began, time.monotonic() - tokenised)
        if answer.failures:
            raise _error(answer.failures[0])
        return Embedded(served.source.name, answer.vectors, len(tokens.ids), truncated)

    async def check(self, *, timeout_s: float) -> ModelState:
        """See ``Gateway.check``."""
        served = self._find(None)
        tokens = served.tokenizer([served.source.profile.format(TextRole.QUERY, "ready?")])
        answer = await served.client.encode(tokens.batch(), timeout_s=timeout_s)
        for failure in answer.failures:
            if failure.code != QueueFullError.code:
                raise _error(failure)
        return served.state()

    def _find(self, name: str | None) -> ServedModel:
        if name is None:
            return next(iter(self._models.values()))
        try:
            return self._models[name]
        except KeyError:
            raise ModelNotFoundError(f"no model {name!r} is served; these are: {', '.join(self._models)}") from None

    async def _tokenise(self, served: ServedModel, texts: Sequence[str], role: TextRole) -> Tokenised:
        profile, tokenizer = served.source.profile, served.tokenizer
        formatted = [profile.format(role, text) for text in texts]
        if sum(map(len, formatted)) <= _INLINE_CHARS:
            return tokenizer(formatted)
        return await asyncio.to_thread(tokenizer, formatted)


def _error(failure: ItemFailure) -> ServiceError:
    return error_of(failure.code, failure.message, retry_after_s=failure.retry_after_s, item=failure.index)


def _too_long(tokens: Tokenised, item: int) -> InvalidInputError:
    return InvalidInputError(
        f"{tokens.full_lengths[item]} tokens, the model's limit is {tokens.lengths[item]}; "
        f"shorten the text, or send truncate: true to have it cut",
        item=item,
    )
