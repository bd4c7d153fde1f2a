"""What the routes may ask of the rest of the service: the seam at which tests put a fake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from serve_app.domain.embeddings import Float32
from serve_app.domain.profiles import TextRole
from serve_app.domain.tokens import Token

Use = Literal["embed", "hybrid", "rerank"]


@dataclass
class TokenTotal:
    """Tokens that the calls of one request have read so far."""

    tokens: int = 0


@dataclass(frozen=True)
class CallOptions:
    """What every encoding or scoring request may say beside its texts.

    Attributes:
        model: A served name; None for the first one that can.
        truncate: Whether a text over its limit is cut (else it is an ``InvalidInputError``).
        timeout_s: After this many seconds ``DeadlineError`` is raised and waiting work dropped.
        max_tokens: Longest text, of rerank requests the longest candidate, in tokens; the model's own limit holds, too.
        max_query_tokens: Longest query of a rerank request, likewise.
        keep_end: A text that is cut loses its beginning instead of its end.
        keep_prefix: A text that begins with the model's query or passage prefix is taken as it is, whatever its role.
        normalize: Dense vectors are L2-normalised; else they are as the model's pooling gives them.
        stated_timeout_s: The seconds that an error names, where ``timeout_s`` is what is left of them.
        total: Tokens of the request so far, where it is split into several calls: its limit is for all of them.
    """

    model: str | None
    truncate: bool
    timeout_s: float
    max_tokens: int | None = None
    max_query_tokens: int | None = None
    keep_end: bool = False
    keep_prefix: bool = False
    normalize: bool = True
    stated_timeout_s: float | None = None
    total: TokenTotal | None = None

    @property
    def stated_s(self) -> float:
        """Seconds that the request has in all, as an error names them."""
        return self.timeout_s if self.stated_timeout_s is None else self.stated_timeout_s


@dataclass(frozen=True)
class Embedded:
    """Dense vectors of a request's texts.

    Attributes:
        model: The name of the model that made them.
        vectors: float32 ``[n, dimension]``, finite, in the order of the texts; L2-normalised unless the options say
            otherwise.
        tokens: Tokens read, special tokens and prefixes included.
        truncated: Indices of the texts that were cut to the model's limit.
    """

    model: str
    vectors: Float32
    tokens: int
    truncated: Sequence[int] = ()


@dataclass(frozen=True)
class HybridEmbedded(Embedded):
    """All representations of a request's texts.

    Attributes:
        sparse: For each text the weight of each token that has any, by the token's text.
        colbert: For each text float32 ``[tokens - 1, dimension]``, each row L2-normalised; None if not asked for.
        weights: In place of ``sparse`` if asked for: id and weight of each token that has any, in no order.
    """

    sparse: Sequence[Mapping[str, float]] = ()
    colbert: Sequence[Float32] | None = None
    weights: Sequence[Sequence[tuple[int, float]]] | None = None


@dataclass(frozen=True)
class TokenEmbedded:
    """Hidden states of the tokens of a request's texts.

    Attributes:
        model: The name of the model that made them.
        states: For each text float32 ``[tokens, dimension]``, finite, special tokens included, not normalised.
        tokens: Tokens read.
        truncated: Indices of the texts that were cut.
    """

    model: str
    states: Sequence[Float32]
    tokens: int
    truncated: Sequence[int] = ()


@dataclass(frozen=True)
class SparseEmbedded:
    """Sparse vectors of a request's texts, by token id.

    Attributes:
        model: The name of the model that made them.
        weights: For each text id and weight of the tokens that have any, in no order, without special tokens.
        truncated: Indices of the texts that were cut to the model's limit.
    """

    model: str
    weights: Sequence[Sequence[tuple[int, float]]]
    truncated: Sequence[int] = ()


@dataclass(frozen=True)
class Ranked:
    """Scores of a request's candidates.

    Attributes:
        model: The name of the model that made them.
        scores: float32 ``[n]``, finite, in the order of the candidates.
        tokens: Tokens of the query and of the candidates, special tokens included; a candidate that was sent twice
            counts twice.
        truncated: Indices of the candidates that were cut; -1 is the query.
    """

    model: str
    scores: Float32
    tokens: int
    truncated: Sequence[int] = ()


@dataclass(frozen=True)
class Explained:
    """Where the score of one candidate comes from.

    Attributes:
        model: The name of the model that made it.
        query_tokens: The query's tokens as text, without the first special one; a blank in front starts a word.
        candidate_tokens: The candidate's, likewise.
        matches: For each query token the index into ``candidate_tokens`` and the cosine of its best match.
        truncated: Of -1 (the query) and 0 (the candidate) those that were cut.
    """

    model: str
    query_tokens: Sequence[str]
    candidate_tokens: Sequence[str]
    matches: Sequence[tuple[int, float]]
    truncated: Sequence[int] = ()


@dataclass(frozen=True)
class ModelState:
    """A served model as an operator sees it.

    Attributes:
        name: The name it is served by.
        family: See ``domain.profiles``.
        dimension: Length of a vector.
        max_tokens: Longest text.
        device: Where it computes; unknown until a replica answers.
        dtype: What it computes in; likewise.
        capabilities: Words of ``domain.profiles.Capability``.
        serves: Of ``embed`` and ``rerank`` what it is configured for.
        base: Of a fine-tune: the model that was tuned.
        kind: Of a fine-tune: ``full``, ``lora`` or ``qlora``.
        created: Of a fine-tune: when, in ISO 8601.
        metrics: Of a fine-tune: retrieval on held-out pairs, ``before`` and ``after``.
        pooling: How token states become its vector: ``mean`` or ``cls``.
        alias_of: The name of the model that this is another name for.
        max_backlog_tokens: Tokens that may wait for one of its replicas; beyond that it refuses more.
        max_batch_tokens: Padded tokens of one forward; unknown until a replica answers.
    """

    name: str
    family: str
    dimension: int
    max_tokens: int
    device: str | None = None
    dtype: str | None = None
    capabilities: Sequence[str] = ()
    serves: Sequence[str] = ()
    base: str | None = None
    kind: str | None = None
    created: str | None = None
    metrics: Mapping[str, Mapping[str, float]] | None = None
    pooling: str | None = None
    max_backlog_tokens: int | None = None
    max_batch_tokens: int | None = None
    alias_of: str | None = None


@dataclass(frozen=True)
class Capacity:
    """What one HTTP replica does at once.

    Attributes:
        max_concurrent_requests: Requests that are inside at once.
        tokenization_workers: Threads that tokenise lists.
    """

    max_concurrent_requests: int
    tokenization_workers: int


ReadyState = Literal["ready", "busy", "loading", "restarting", "down"]


@dataclass(frozen=True)
class ModelReadiness:
    """Whether a configured model works.

    Attributes:
        model: Its name.
        serves: ``embed`` or ``rerank``: a model may have a deployment for each.
        state: ``ready`` after a forward; ``busy`` with longer work; ``loading`` since the start of the service;
            ``restarting`` while Ray Serve replaces its replicas; ``down`` if its deployment failed, no replica has
            answered for half a minute, or it computes no numbers.
        reason: Of the last three: why.
        device: Where it computes; unknown until a replica answers.
        dtype: What it computes in; likewise.
    """

    model: str
    serves: str
    state: ReadyState
    reason: str | None = None
    device: str | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class Readiness:
    """Whether the service works.

    Attributes:
        default: The model that dense routes use where a request names none.
        models: Every configured model, the default one first.
        reason: Why requests should go elsewhere: the default model does not answer, or one is down; else None.
    """

    default: ModelState
    models: Sequence[ModelReadiness]
    reason: str | None = None


class ServiceProtocol(Protocol):
    """The service behind the routes; every method may raise a ``ServiceError``.

    Texts are never empty. An error has ``item`` set where a single text is at
    fault; of a rerank request that is the index of the candidate, or -1 for the query.
    """

    @property
    def capacity(self) -> Capacity:
        """What this HTTP replica does at once."""
        ...

    async def embed(self, texts: Sequence[str], role: TextRole | None, options: CallOptions) -> Embedded:
        """Dense vectors of texts, as queries or as passages, or without a role as they are."""
        ...

    async def embed_ids(self, rows: Sequence[Sequence[int]], options: CallOptions) -> Embedded:
        """Dense vectors of texts that the client has tokenised, each of at least one id that is not negative.

        Nothing is added, neither a prefix nor special tokens.

        Raises:
            InvalidInputError: An id is not in the model's vocabulary.
        """
        ...

    async def embed_tokens(self, texts: Sequence[str], role: TextRole | None, options: CallOptions) -> TokenEmbedded:
        """The hidden states of the texts' tokens; the role as for ``embed``.

        Raises:
            InvalidInputError: They are more numbers than a reply may have.
        """
        ...

    async def encode(
        self, texts: Sequence[str], options: CallOptions, *, colbert: bool, by_id: bool = False
    ) -> HybridEmbedded:
        """Dense and sparse vectors of texts, and their ColBERT vectors if asked for.

        Args:
            texts: Which.
            options: See there.
            colbert: Whether ColBERT vectors are wanted.
            by_id: Whether sparse weights are wanted by token id, in ``weights``, instead of by the token's text.

        Raises:
            CapabilityError: The model has no such representations.
        """
        ...

    async def encode_sparse(self, texts: Sequence[str], role: TextRole | None, options: CallOptions) -> SparseEmbedded:
        """Sparse vectors of texts by token id; the role as for ``embed``.

        Raises:
            CapabilityError: The model has none.
        """
        ...

    async def tokenize(
        self, texts: Sequence[str], role: TextRole | None, model: str | None, *, special: bool
    ) -> Sequence[Sequence[Token]]:
        """The tokens of texts as ``embed`` with this role would read them, uncut.

        Args:
            texts: Which.
            role: A role's prefix becomes part of the text, in which tokens have their places.
            model: A served name; None for the default.
            special: Whether to give the special tokens around each text.
        """
        ...

    async def decode(self, rows: Sequence[Sequence[int]], model: str | None, *, special: bool) -> Sequence[str]:
        """The text of each row of at least one token id that is not negative.

        Args:
            rows: Which.
            model: A served name; None for the default.
            special: Whether special tokens are written, too.

        Raises:
            InvalidInputError: An id is not in the model's vocabulary.
        """
        ...

    async def rerank(
        self, query: str, candidates: Sequence[str], options: CallOptions, *, batch_size: int, normalize: bool
    ) -> Ranked:
        """Scores candidates for a query.

        Args:
            query: What is searched for.
            candidates: At least one.
            options: See there.
            batch_size: Candidates in one forward, at most.
            normalize: Late interaction: the mean over query tokens of the best match's cosine, else their sum.
                Cross-encoder: the sigmoid of the logit, else the logit.
        """
        ...

    async def explain(self, query: str, candidate: str, options: CallOptions) -> Explained:
        """Says which token of the candidate answers each token of the query.

        Raises:
            CapabilityError: The reranker reads pairs and compares no token vectors.
        """
        ...

    async def find(self, model: str | None, use: Use) -> ModelState:
        """The model that a request means, with ``serves`` left empty; computes nothing.

        Args:
            model: A served name; None for the first one that can.
            use: What the request is for.

        Raises:
            ModelNotFoundError: No served model has this name.
            CapabilityError: It is served for something else.
        """
        ...

    async def models(self) -> Sequence[ModelState]:
        """All served models: the default first, the other configured ones, fine-tunes."""
        ...

    async def delete_model(self, name: str) -> None:
        """Deletes a fine-tune; its name is free at once.

        Raises:
            ModelNotFoundError: There is no such model.
            ConflictError: It is configured, or the base of another.
        """
        ...

    async def readiness(self, *, timeout_s: float) -> Readiness:
        """Runs a real forward on every configured model, all at the same time; busy counts as in ``check``.

        Args:
            timeout_s: For all of it; more than two seconds.
        """
        ...

    async def check(self, *, timeout_s: float) -> ModelState:
        """Runs a real forward on the default model, through the whole path.

        Busy is not broken, and a probe that failed for it would take a replica away just when it is needed: a full
        queue or a forward that does not come to its turn in time counts as working, if a replica says that what it
        computes meanwhile is not too long.

        Args:
            timeout_s: For all of it; more than two seconds.

        Raises:
            ServiceError: It failed, or no replica answers, or its forward hangs.
        """
        ...
