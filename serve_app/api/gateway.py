"""What the routes may ask of the rest of the service: the seam at which tests put a fake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from serve_app.domain.embeddings import Float32
from serve_app.domain.profiles import TextRole


@dataclass(frozen=True)
class Embedded:
    """Dense vectors of a request's texts.

    Attributes:
        model: The name of the model that made them.
        vectors: float32 ``[n, dimension]``, L2-normalised, finite, in the order of the texts.
        tokens: Tokens read, special tokens and prefixes included.
        truncated: Indices of the texts that were cut to the model's limit.
    """

    model: str
    vectors: Float32
    tokens: int
    truncated: Sequence[int] = ()


@dataclass(frozen=True)
class ModelState:
    """A served model as an operator sees it; ``device`` and ``dtype`` are unknown until a replica answers."""

    name: str
    family: str
    dimension: int
    max_tokens: int
    device: str | None = None
    dtype: str | None = None


class Gateway(Protocol):
    """The service behind the routes; every method may raise a ``ServiceError``."""

    async def embed(
        self, texts: Sequence[str], role: TextRole, *, model: str | None, truncate: bool, timeout_s: float
    ) -> Embedded:
        """Embeds texts.

        Args:
            texts: Not empty, without blank texts.
            role: Query or passage.
            model: A served name; None for the default.
            truncate: Whether a text over the model's limit is cut (else it is an ``InvalidInputError``).
            timeout_s: After this many seconds ``DeadlineError`` is raised and waiting work dropped.

        Raises:
            ServiceError: With ``item`` set where a single text is at fault.
        """
        ...

    async def check(self, *, timeout_s: float) -> ModelState:
        """Runs a real forward on the default model, through the whole path.

        A full queue counts as working: busy is not broken, and a probe that failed for it would take a
        replica away just when it is needed.

        Raises:
            ServiceError: It failed or took longer than ``timeout_s`` seconds.
        """
        ...
