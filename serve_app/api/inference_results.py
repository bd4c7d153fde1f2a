"""Values that cross the service protocol: the options of a call and its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from serve_app.domain.embeddings import Float32
from serve_app.domain.rank_request import TokenMatches

Use = Literal["embed", "hybrid", "rerank"]


@dataclass
class TokenTotal:
    """Tokens read so far by the calls of one request."""

    tokens: int = 0


@dataclass(frozen=True)
class CallOptions:
    """Options of an encoding or scoring call.

    Attributes:
        model: A served name; None for the first model with the capability.
        truncate: Cut a text over its limit; if false, such a text raises ``InvalidInputError``.
        timeout_s: After this many seconds ``DeadlineError`` is raised and waiting work dropped.
        max_tokens: Token limit of a text (of a candidate, in a rerank call), in addition to the model's own.
        max_query_tokens: Token limit of the query of a rerank call, likewise.
        keep_end: Cut texts at their beginning instead of their end.
        keep_prefix: Add no prefix to a text that begins with the model's query or passage prefix.
        normalize: L2-normalise dense vectors; if false, they are the output of the model's pooling.
        stated_timeout_s: The seconds that error messages name, where ``timeout_s`` is what remains of them.
        total: Running token count of a request that is split into several calls; its limit applies to their sum.
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
        """Seconds of the whole request, for error messages."""
        return self.timeout_s if self.stated_timeout_s is None else self.stated_timeout_s


@dataclass(frozen=True)
class Embedded:
    """Dense vectors of the texts of a call.

    Attributes:
        model: Name of the model.
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
    """Dense, sparse and multi-vector representations of the texts of a call.

    Attributes:
        sparse: For each text the weight of each weighted token, by the token's text.
        colbert: For each text float32 ``[tokens - 1, dimension]``, each row L2-normalised; None if not requested.
        weights: For each text id and weight of each weighted token, unordered; instead of ``sparse``, if requested.
    """

    sparse: Sequence[Mapping[str, float]] = ()
    colbert: Sequence[Float32] | None = None
    weights: Sequence[Sequence[tuple[int, float]]] | None = None


@dataclass(frozen=True)
class TokenEmbedded:
    """Hidden states of the tokens of the texts of a call.

    Attributes:
        model: Name of the model.
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
    """Sparse vectors of the texts of a call, by token id.

    Attributes:
        model: Name of the model.
        weights: For each text id and weight of the weighted tokens, unordered, without special tokens.
        truncated: Indices of the texts that were cut to the model's limit.
    """

    model: str
    weights: Sequence[Sequence[tuple[int, float]]]
    truncated: Sequence[int] = ()


@dataclass(frozen=True)
class Ranked:
    """Scores of the candidates of a rerank call.

    Attributes:
        model: Name of the model.
        scores: float32 ``[n]``, finite, in the order of the candidates.
        tokens: Tokens of query and candidates, special tokens included; a repeated candidate counts each time.
        truncated: Indices of the candidates that were cut; -1 is the query.
    """

    model: str
    scores: Float32
    tokens: int
    truncated: Sequence[int] = ()


@dataclass(frozen=True)
class Explained:
    """The token matches behind the score of one candidate, with the tokens as text.

    Attributes:
        model: Name of the model.
        query_tokens: ``[q]``, the query's tokens without the first special one; a leading space marks a word start.
        candidate_tokens: ``[c]``, the candidate's tokens, likewise.
        matches: ``[q]``; position 1 is the first of ``candidate_tokens``.
        truncated: The texts that were cut: -1 for the query, 0 for the candidate.
    """

    model: str
    query_tokens: Sequence[str]
    candidate_tokens: Sequence[str]
    matches: TokenMatches
    truncated: Sequence[int] = ()
