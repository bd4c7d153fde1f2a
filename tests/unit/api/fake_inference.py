"""A fake inference service: it computes nothing and records its calls."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

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
from serve_app.api.model_states import Capacity, ModelReadiness, ModelState, Readiness
from serve_app.domain.embeddings import Float32
from serve_app.domain.errors import ModelNotFoundError
from serve_app.domain.model_names import PROVIDERS
from serve_app.domain.model_uses import ModelUses
from serve_app.domain.profiles import TextRole
from serve_app.domain.rank_request import TokenMatches
from serve_app.domain.tokens import Token

STATE = ModelState("my-e5", "e5", 4, 512, "cpu", "float32", ("dense",), ("embed",), max_backlog_tokens=9000)
M3 = ModelState("me/my-m3", "bge-m3", 4, 8192, None, None, ("dense", "sparse", "colbert"), ("embed", "rerank"))


@dataclass(frozen=True)
class Asked:
    """One call of ``embed`` or another encoding method."""

    texts: list[str]
    role: TextRole | None
    model: str | None
    truncate: bool
    timeout_s: float


@dataclass(frozen=True)
class Reranked:
    """One call of ``rerank`` or ``explain``."""

    query: str
    candidates: list[str]
    options: CallOptions
    batch_size: int
    normalize: bool


def score_of(candidate: str) -> float:
    """A score that float32 holds exactly: longer is better."""
    return len(candidate) / 128


def vector_of(text: str, dimension: int = 4) -> Float32:
    """float32 ``[dimension]``, another one for every text that the tests use."""
    seed = int.from_bytes(text.encode(), "big") % 2**32
    return np.random.default_rng(seed).normal(size=dimension).astype(np.float32)


def text_of(ids: Sequence[int]) -> str:
    """The text in place of token ids."""
    return " ".join(map(str, ids))


class FakeInference:
    """Implements ``api.inference_protocol.InferenceProtocol``.

    Attributes:
        error: Raised by every call while it is set.
        options: Of every call that computes.
        truncated: What is reported of every request.
        dimension: Of the vectors.
        readiness_of: The state of each model.
        not_ready: Why the service is not ready.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.options: list[CallOptions] = []
        self.capacity = Capacity(max_concurrent_requests=100, tokenization_workers=2)
        self.asked_ids: list[list[list[int]]] = []
        self.reranks: list[Reranked] = []
        self.deleted: list[str] = []
        self.checks: list[float] = []
        self.error: BaseException | None = None
        self.truncated: Sequence[int] = ()
        self.dimension = 4
        self.readiness_of = [ModelReadiness("my-e5", "embed", "ready", None, "cpu", "float32")]
        self.not_ready: str | None = None

    async def embed(self, texts: Sequence[str], role: TextRole | None, options: CallOptions) -> Embedded:
        self.asked.append(Asked(list(texts), role, options.model, options.truncate, options.timeout_s))
        self.options.append(options)
        if self.error is not None:
            raise self.error
        vectors = np.stack([vector_of(text, self.dimension) for text in texts])
        return Embedded("my-e5", vectors, tokens=7, truncated=self.truncated)

    async def embed_ids(self, rows: Sequence[Sequence[int]], options: CallOptions) -> Embedded:
        self.asked_ids.append([list(row) for row in rows])
        return await self.embed([text_of(row) for row in rows], None, options)

    async def embed_tokens(self, texts: Sequence[str], role: TextRole | None, options: CallOptions) -> TokenEmbedded:
        await self.embed(texts, role, options)
        states = [np.stack([vector_of(word, self.dimension) for word in ["<s>", *text.split()]]) for text in texts]
        return TokenEmbedded("my-e5", states, 7, self.truncated)

    async def encode(
        self, texts: Sequence[str], options: CallOptions, *, colbert: bool, by_id: bool = False
    ) -> HybridEmbedded:
        dense = await self.embed(texts, TextRole.PASSAGE, options)
        sparse = [] if by_id else [dict.fromkeys(text.split(), 0.5) for text in texts]
        weights = [[(len(word), 0.5) for word in text.split()] for text in texts] if by_id else None
        rows = [np.stack([vector_of(word, self.dimension) for word in text.split()]) for text in texts]
        return HybridEmbedded(
            dense.model, dense.vectors, dense.tokens, dense.truncated, sparse, rows if colbert else None, weights
        )

    async def encode_sparse(self, texts: Sequence[str], role: TextRole | None, options: CallOptions) -> SparseEmbedded:
        await self.embed(texts, role, options)
        return SparseEmbedded("my-m3", [[(len(word), 0.5) for word in text.split()] for text in texts], self.truncated)

    async def tokenize(
        self, texts: Sequence[str], role: TextRole | None, model: str | None, *, special: bool
    ) -> Sequence[Sequence[Token]]:
        self.asked.append(Asked(list(texts), role, model, special, 0.0))
        if self.error is not None:
            raise self.error
        first = [Token(0, "<s>", True)] if special else []
        return [[*first, Token(len(text), text, False, 0, len(text.encode()))] for text in texts]

    async def decode(self, rows: Sequence[Sequence[int]], model: str | None, *, special: bool) -> Sequence[str]:
        if self.error is not None:
            raise self.error
        return [("<s> " if special else "") + text_of(row) for row in rows]

    async def rerank(
        self, query: str, candidates: Sequence[str], options: CallOptions, *, batch_size: int, normalize: bool
    ) -> Ranked:
        self.reranks.append(Reranked(query, list(candidates), options, batch_size, normalize))
        self.options.append(options)
        if self.error is not None:
            raise self.error
        return Ranked("my-m3", np.array([score_of(c) for c in candidates], np.float32), 9, self.truncated)

    async def explain(self, query: str, candidate: str, options: CallOptions) -> Explained:
        self.reranks.append(Reranked(query, [candidate], options, 1, True))
        if self.error is not None:
            raise self.error
        words, others = query.split(), candidate.split()
        matches = TokenMatches(np.full(len(words), len(others)), 0.5 + np.arange(len(words), dtype=np.float32) / 8)
        return Explained("my-m3", words, others, matches, self.truncated)

    async def find(self, model: str | None, use: Use) -> ModelState:
        if self.error is not None:
            raise self.error
        for state in (STATE, M3):
            if model in (None, state.name):
                return replace(state, dimension=self.dimension)
        raise ModelNotFoundError(f"no model {model!r} is served")

    async def models(self) -> Sequence[ModelState]:
        return [STATE, M3]

    async def delete_model(self, name: str, jobs_by_base: Mapping[str, str]) -> None:
        if self.error is not None:
            raise self.error
        ModelUses(jobs=jobs_by_base).require_unused(name)
        if name.split("/")[0] in PROVIDERS:
            raise ModelNotFoundError(f"no fine-tune {name!r} is here")
        self.deleted.append(name)

    async def readiness(self, *, timeout_s: float) -> Readiness:
        default = await self.check(timeout_s=timeout_s)
        return Readiness(default, self.readiness_of, self.not_ready)

    async def check(self, *, timeout_s: float) -> ModelState:
        self.checks.append(timeout_s)
        await asyncio.sleep(0)  # others get their turn, as in a real forward
        if self.error is not None:
            raise self.error
        return STATE
