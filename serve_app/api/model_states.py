"""State and readiness of the served models, as the service protocol reports them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ModelState:
    """State and capabilities of a served model.

    Attributes:
        name: The name it is served under.
        family: See ``domain.profiles``.
        dimension: Length of a vector.
        max_tokens: Token limit of a text.
        device: Device of its replicas; None until one has answered.
        dtype: Data type of its weights; likewise.
        capabilities: Values of ``domain.profiles.Capability``.
        serves: The uses it is configured for: ``embed``, ``rerank``.
        base: The base model, for a fine-tune.
        kind: ``full``, ``lora`` or ``qlora``, for a fine-tune.
        created: Creation time in ISO 8601, for a fine-tune.
        metrics: Retrieval metrics on held-out pairs, ``before`` and ``after``, for a fine-tune.
        pooling: Pooling of token states into a vector: ``mean`` or ``cls``.
        alias_of: The model behind this alias.
        max_backlog_tokens: Token limit of the queue of each replica; a request beyond it gets 429.
        max_batch_tokens: Padded tokens of one forward; None until a replica has answered.
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
    """Concurrency of one HTTP replica.

    Attributes:
        max_concurrent_requests: Requests in flight.
        tokenization_workers: Threads that tokenise lists.
    """

    max_concurrent_requests: int
    tokenization_workers: int


ReadyState = Literal["ready", "busy", "loading", "restarting", "down"]


@dataclass(frozen=True)
class ModelReadiness:
    """Readiness of a configured model.

    Attributes:
        model: Its name.
        serves: ``embed`` or ``rerank``; a model may have a deployment for each.
        state: ``ready`` after a forward; ``busy`` with longer work; ``loading`` since the start of the service;
            ``restarting`` while Ray Serve replaces its replicas; ``down`` if its deployment failed, no replica has
            answered for half a minute, or its results are not finite.
        reason: Cause of the states ``loading``, ``restarting`` and ``down``.
        device: Device of its replicas; None until one has answered.
        dtype: Data type of its weights; likewise.
    """

    model: str
    serves: str
    state: ReadyState
    reason: str | None = None
    device: str | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class Readiness:
    """Readiness of the service.

    Attributes:
        default: The model that dense routes use where a request names none.
        models: Every configured model, the default first.
        reason: Why the service is not ready: the default model does not answer, or another one is down; else None.
    """

    default: ModelState
    models: Sequence[ModelReadiness]
    reason: str | None = None
