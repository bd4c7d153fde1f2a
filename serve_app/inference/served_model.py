"""A served model in an ingress replica: its card, its tokenizer, the client of its replicas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Generic, TypeVar

from serve_app.api.inference_results import CallOptions
from serve_app.api.model_states import ModelState
from serve_app.domain.embeddings import ModelVersion, TokenBatch
from serve_app.domain.executors import run_chunked
from serve_app.domain.profiles import Capability, TextRole
from serve_app.domain.tokens import Token
from serve_app.domain.usage import add_tokens
from serve_app.inference.replica_caller import ReplicaCaller
from serve_app.models.fine_tunes import FineTune
from serve_app.models.model_source import ModelSource
from serve_app.models.tokenised import Tokenised
from serve_app.models.tokenizer import TextTokenizer

_INLINE_CHARS = 4000  # about half a millisecond of tokenising; longer lists are tokenised in threads, in slices
_INLINE_IDS = 10_000  # about half a millisecond of checking ids

C = TypeVar("C", bound=ReplicaCaller)


class ServedModel(Generic[C]):
    """One model and its deployment."""

    def __init__(
        self,
        source: ModelSource,
        capabilities: frozenset[Capability],
        caller: C,
        fine_tune: FineTune | None = None,
        *,
        max_backlog_tokens: int | None = None,
        batch_tokens: Callable[[str], int] | None = None,
    ) -> None:
        """Reads the tokenizer.

        Args:
            source: The model's card.
            capabilities: Capabilities of this deployment, which may be fewer than those of the family.
            caller: Calls its replicas.
            fine_tune: The fine-tune, if it is one.
            max_backlog_tokens: Tokens that may wait for one replica, if known.
            batch_tokens: Returns the padded tokens of one forward on a device, if known.
        """
        self.source = source
        self.capabilities = capabilities
        self.caller = caller
        self.fine_tune = fine_tune
        self.max_backlog_tokens = max_backlog_tokens
        self.batch_tokens = batch_tokens
        self.tokenizer = TextTokenizer.of(source)

    @property
    def model_version(self) -> ModelVersion | None:
        """The fine-tune that replicas load; None for a deployment's own model."""
        return self.fine_tune.model_version if self.fine_tune else None

    def batch(self, tokens: Tokenised) -> TokenBatch:
        """Token ids for this model's replicas."""
        return replace(tokens.batch(), model_version=self.model_version)

    def state(self) -> ModelState:
        """The model's state, for the list of models."""
        replica = self.caller.state
        fine_tune = self.fine_tune
        return ModelState(
            name=self.source.name,
            family=self.source.profile.family,
            dimension=self.source.dimension,
            max_tokens=self.source.max_tokens,
            device=replica.device if replica else None,
            dtype=replica.dtype if replica else None,
            capabilities=[c.value for c in Capability if c in self.capabilities],
            base=fine_tune.base if fine_tune else None,
            kind=fine_tune.kind if fine_tune else None,
            created=fine_tune.manifest.created if fine_tune else None,
            metrics=fine_tune.manifest.metrics if fine_tune else None,
            pooling=self.source.pooling.value,
            max_backlog_tokens=self.max_backlog_tokens,
            max_batch_tokens=self.batch_tokens(replica.device) if self.batch_tokens and replica else None,
        )

    async def tokenise(
        self, texts: Sequence[str], role: TextRole | None, options: CallOptions | None = None
    ) -> Tokenised:
        """Token ids of the texts, with the prefixes of the model's family; long lists are tokenised in slices."""
        formatted = self._formatted(texts, role, keep_prefix=options is not None and options.keep_prefix)
        tokenizer: Callable[[Sequence[str]], Tokenised] = self.tokenizer
        if options is not None and (options.max_tokens is not None or options.keep_end):
            prompts = self.source.profile.prefixes
            tokenizer = partial(
                self.tokenizer, max_tokens=options.max_tokens, keep_end=options.keep_end, prompts=prompts
            )
        if sum(map(len, formatted)) <= _INLINE_CHARS:
            return await _count_usage(tokenizer(formatted))
        return await _count_usage(Tokenised.join(await run_chunked(tokenizer, formatted, map(len, formatted))))

    async def of_ids(self, rows: Sequence[Sequence[int]], options: CallOptions | None = None) -> Tokenised:
        """Checks texts that the client has tokenised; long lists are checked in slices.

        Raises:
            InvalidInputError: An id is not in the vocabulary; ``item`` is the row.
        """
        of_ids: Callable[[Sequence[Sequence[int]]], Tokenised] = self.tokenizer.of_ids
        if options is not None:
            of_ids = partial(self.tokenizer.of_ids, max_tokens=options.max_tokens, keep_end=options.keep_end)
        if sum(map(len, rows)) <= _INLINE_IDS:
            return await _count_usage(of_ids(rows))
        return await _count_usage(Tokenised.join(await run_chunked(of_ids, rows, map(len, rows))))

    async def decode(self, rows: Sequence[Sequence[int]], *, special: bool) -> list[str]:
        """The text of each row of token ids; long lists are decoded in slices.

        Raises:
            InvalidInputError: An id is not in the vocabulary; ``item`` is the row.
        """
        decode = partial(self.tokenizer.decode, special=special)
        return [text for part in await run_chunked(decode, rows, map(len, rows)) for text in part]

    async def tokens(self, texts: Sequence[str], role: TextRole | None, *, special: bool) -> list[list[Token]]:
        """The tokens of the texts, with the family's prefixes, and their positions in the prefixed texts."""
        formatted = self._formatted(texts, role)
        parts = await run_chunked(partial(self.tokenizer.tokens, special=special), formatted, map(len, formatted))
        rows = [tokens for part in parts for tokens in part]
        await add_tokens(sum(map(len, rows)))
        return rows

    def _formatted(self, texts: Sequence[str], role: TextRole | None, *, keep_prefix: bool = False) -> Sequence[str]:
        if role is None:
            return texts
        return [self.source.profile.format(role, text, keep_prefix=keep_prefix) for text in texts]

    async def tokenise_pairs(
        self, query: str, candidates: Sequence[str], options: CallOptions | None = None
    ) -> Tokenised:
        """Token ids of the query with each candidate."""
        pairs = partial(self.tokenizer.pairs, query)  # tokenises the query once for each slice
        if options is not None:
            pairs = partial(
                pairs,
                max_tokens=options.max_tokens,
                max_query_tokens=options.max_query_tokens,
                keep_end=options.keep_end,
            )
        return await _count_usage(
            Tokenised.join(await run_chunked(pairs, candidates, map(len, candidates), overhead=len(query)))
        )


async def _count_usage(tokens: Tokenised) -> Tokenised:
    """Charges the request for its tokens, even if its texts are refused later."""
    await add_tokens(len(tokens.ids))
    return tokens
