"""Checks and counts on the tokens of one request: truncation, the token limit, metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from serve_app.api.inference_results import CallOptions, TokenTotal
from serve_app.domain.errors import InvalidInputError
from serve_app.models.tokenised import Tokenised


class RequestMetrics(Protocol):
    """Counters and timers of an ingress replica.

    Attributes:
        texts: Texts accepted for encoding.
        tokens: Tokens accepted for encoding.
        truncated: Texts cut to the token limit.
    """

    texts: int
    tokens: int
    truncated: int

    def observe(self, tokenise_s: float, encode_s: float) -> None:
        """Records the times of one request, in seconds."""
        ...


def truncated_texts(tokens: Tokenised, options: CallOptions, *, first: int = 0) -> list[int]:
    """Indices of the truncated texts, if the request allows truncation.

    Args:
        tokens: Tokens of all texts.
        options: Options of the request; ``truncate`` allows truncation.
        first: Index of the first text.

    Raises:
        InvalidInputError: A text was truncated and the request does not allow it.
    """
    cut = tokens.truncated
    if cut and not options.truncate:
        limit = "the model's limit" if options.max_tokens is None else "the limit"
        raise InvalidInputError(
            f"{tokens.full_lengths[cut[0]]} tokens, {limit} is {tokens.lengths[cut[0]]}; "
            f"shorten the text, or send truncate: true to have it cut",
            item=cut[0] + first,
        )
    return [i + first for i in cut]


def require_few_tokens(parts: Iterable[Tokenised], most: int, total: TokenTotal | None = None) -> None:
    """Raises ``InvalidInputError`` if the texts of a request have more tokens together than the limit.

    Args:
        parts: Texts of this call.
        most: Largest number of tokens of a request.
        total: Tokens of the request's earlier calls; those of this call are added.
    """
    total = total or TokenTotal()
    total.tokens += sum(len(part.ids) for part in parts)
    if total.tokens > most:
        raise InvalidInputError(f"{total.tokens} tokens together, the limit is {most}; send several requests")


def count(metrics: RequestMetrics, parts: Iterable[Tokenised]) -> int:
    """Adds texts, tokens and truncated texts to the metrics; returns the number of tokens."""
    tokens = 0
    for part in parts:
        metrics.texts += len(part.lengths)
        metrics.truncated += len(part.truncated)
        tokens += len(part.ids)
    metrics.tokens += tokens
    return tokens
