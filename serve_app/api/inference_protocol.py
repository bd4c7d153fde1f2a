"""The protocol between the routes and the inference service behind them; tests put a fake there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from serve_app.api.inference_results import (
    CallOptions,
    Embedded,
    Explained,
    HybridEmbedded,
    Ranked,
    SparseEmbedded,
    TokenEmbedded,
    Use,
)
from serve_app.api.model_states import Capacity, ModelState, Readiness
from serve_app.domain.profiles import TextRole
from serve_app.domain.tokens import Token


class InferenceProtocol(Protocol):
    """The inference service behind the routes; every method may raise a ``ServiceError``.

    Texts are never empty. An error caused by one text has its index in ``item``; in a rerank call that is the index of
    the candidate, or -1 for the query.
    """

    @property
    def capacity(self) -> Capacity:
        """Concurrency of this HTTP replica."""
        ...

    async def embed(self, texts: Sequence[str], role: TextRole | None, options: CallOptions) -> Embedded:
        """Dense vectors of texts, as queries or passages; without a role no prefix is added."""
        ...

    async def embed_ids(self, rows: Sequence[Sequence[int]], options: CallOptions) -> Embedded:
        """Dense vectors of texts that the client has tokenised; neither prefix nor special tokens are added.

        Args:
            rows: The token ids of each text, at least one and none negative.
            options: Options of the call.

        Raises:
            InvalidInputError: An id is not in the model's vocabulary.
        """
        ...

    async def embed_tokens(self, texts: Sequence[str], role: TextRole | None, options: CallOptions) -> TokenEmbedded:
        """The hidden states of the texts' tokens; the role as for ``embed``.

        Raises:
            InvalidInputError: The reply would exceed its limit of numbers.
        """
        ...

    async def encode(
        self, texts: Sequence[str], options: CallOptions, *, colbert: bool, by_id: bool = False
    ) -> HybridEmbedded:
        """Dense, sparse and, optionally, ColBERT vectors of texts.

        Args:
            texts: The texts, in order.
            options: Options of the call.
            colbert: Compute ColBERT vectors.
            by_id: Give sparse weights by token id, in ``weights``, instead of by the token's text.

        Raises:
            CapabilityError: The model lacks these representations.
        """
        ...

    async def encode_sparse(self, texts: Sequence[str], role: TextRole | None, options: CallOptions) -> SparseEmbedded:
        """Sparse vectors of texts by token id; the role as for ``embed``.

        Raises:
            CapabilityError: The model has no sparse head.
        """
        ...

    async def tokenize(
        self, texts: Sequence[str], role: TextRole | None, model: str | None, *, special: bool
    ) -> Sequence[Sequence[Token]]:
        """The tokens of texts as ``embed`` with this role reads them, without truncation.

        Args:
            texts: The texts, in order.
            role: Its prefix is part of the text in which tokens have their offsets.
            model: A served name; None for the default.
            special: Include the special tokens around each text.
        """
        ...

    async def decode(self, rows: Sequence[Sequence[int]], model: str | None, *, special: bool) -> Sequence[str]:
        """The text of each row of token ids.

        Args:
            rows: Token ids, at least one in each row and none negative.
            model: A served name; None for the default.
            special: Include special tokens in the text.

        Raises:
            InvalidInputError: An id is not in the model's vocabulary.
        """
        ...

    async def rerank(
        self, query: str, candidates: Sequence[str], options: CallOptions, *, batch_size: int, normalize: bool
    ) -> Ranked:
        """Scores of candidates for a query.

        Args:
            query: The search query.
            candidates: At least one.
            options: Options of the call.
            batch_size: Upper limit of candidates in one forward.
            normalize: Late interaction: the mean over query tokens of the best match's cosine, else their sum.
                Cross-encoder: the sigmoid of the logit, else the logit.
        """
        ...

    async def explain(self, query: str, candidate: str, options: CallOptions) -> Explained:
        """The best-matching candidate token of each query token.

        Raises:
            CapabilityError: The reranker is a cross-encoder, which compares no token vectors.
        """
        ...

    async def find(self, model: str | None, use: Use) -> ModelState:
        """The model that a request resolves to, with ``serves`` left empty; computes nothing.

        Args:
            model: A served name; None for the first model with the capability.
            use: Purpose of the request.

        Raises:
            ModelNotFoundError: No served model has this name.
            CapabilityError: The model is not configured for this use.
        """
        ...

    async def models(self) -> Sequence[ModelState]:
        """All served models: the default, the other configured ones, fine-tunes."""
        ...

    async def delete_model(self, name: str, jobs_by_base: Mapping[str, str]) -> None:
        """Deletes a fine-tune; its name is free at once.

        Args:
            name: Its name.
            jobs_by_base: The job that tunes a model, by the model's name.

        Raises:
            ModelNotFoundError: No fine-tune has this name.
            ConflictError: The model is in use, see ``ModelUses``.
        """
        ...

    async def readiness(self, *, timeout_s: float) -> Readiness:
        """Runs a forward on every configured model, concurrently; busy counts as in ``check``.

        Args:
            timeout_s: Total seconds, more than two.
        """
        ...

    async def check(self, *, timeout_s: float) -> ModelState:
        """Runs a forward on the default model, through the whole path.

        A busy model passes: a probe that failed under load would remove a replica when it is needed most. A full queue
        or a forward that is not reached in time passes if a replica reports that its current work is not overdue.

        Args:
            timeout_s: Total seconds, more than two.

        Raises:
            ServiceError: The forward failed or hangs, or no replica answers.
        """
        ...
