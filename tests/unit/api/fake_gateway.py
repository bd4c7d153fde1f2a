"""A service behind the routes that computes nothing: it remembers what it was asked and answers as told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serve_app.api.gateway import Embedded, ModelState
from serve_app.domain.embeddings import Float32
from serve_app.domain.profiles import TextRole

STATE = ModelState("my-e5", "e5", 4, 512, "cpu", "float32")


@dataclass(frozen=True)
class Asked:
    """One call of ``embed``."""

    texts: list[str]
    role: TextRole
    model: str | None
    truncate: bool
    timeout_s: float


def vector_of(text: str, dimension: int = 4) -> Float32:
    """float32 ``[dimension]``, another one for every text that the tests use."""
    seed = int.from_bytes(text.encode(), "big") % 2**32
    return np.random.default_rng(seed).normal(size=dimension).astype(np.float32)


class FakeGateway:
    """Implements ``api.gateway.Gateway``.

    Attributes:
        error: Raised by every call while it is set.
        truncated: What is reported of every request.
        dimension: Of the vectors.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.checks: list[float] = []
        self.error: BaseException | None = None
        self.truncated: Sequence[int] = ()
        self.dimension = 4

    async def embed(
        self, texts: Sequence[str], role: TextRole, *, model: str | None, truncate: bool, timeout_s: float
    ) -> Embedded:
        self.asked.append(Asked(list(texts), role, model, truncate, timeout_s))
        if self.error is not None:
            raise self.error
        vectors = np.stack([vector_of(text, self.dimension) for text in texts])
        return Embedded("my-e5", vectors, tokens=7, truncated=self.truncated)

    async def check(self, *, timeout_s: float) -> ModelState:
        self.checks.append(timeout_s)
        await asyncio.sleep(0)  # others get their turn, as in a real forward
        if self.error is not None:
            raise self.error
        return STATE
