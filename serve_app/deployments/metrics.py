"""Prometheus metrics through Ray's exporter; Ray adds the labels deployment, replica and application.

Counters are collected in plain integers and handed to Ray once a second, because one call into Ray's
metrics costs as much as parsing a small request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter as Tally
from collections.abc import Callable
from typing import Any, TypeVar

from ray.serve.metrics import Counter, Gauge, Histogram

from serve_app.domain.background import BackgroundTasks
from serve_app.models.batching.scheduler import MicroBatchReport

_SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60]
_FLUSH_S = 1.0

M = TypeVar("M", Counter, Gauge, Histogram)


class _Flushed(ABC):
    """Metrics that are handed to Ray once a second."""

    def start(self, tasks: BackgroundTasks) -> None:
        """Starts to call ``flush`` once a second."""
        tasks.every("metrics", _FLUSH_S, self.flush)

    @abstractmethod
    def flush(self) -> None:
        """Hands the counts to Ray."""


class IngressMetrics(_Flushed):
    """Metrics of an ingress replica: texts, tokens, truncated texts, statuses, times."""

    def __init__(self) -> None:
        """Registers the metrics."""
        self.texts = 0
        self.tokens = 0
        self.truncated = 0
        self._statuses: Tally[tuple[str, str]] = Tally()
        self._texts = Counter("retrieval_texts", "Texts accepted for encoding.")
        self._tokens = Counter("retrieval_tokens", "Tokens accepted for encoding.")
        self._truncated = Counter("retrieval_truncated_texts", "Texts cut to the model's token limit.")
        self._responses = Counter("retrieval_responses", "Responses by route and status.", _labels("path", "status"))
        self._tokenise = Histogram("retrieval_tokenise_seconds", "Tokenising one request.", _SECONDS)
        self._encode = Histogram("retrieval_encode_seconds", "From tokens to vectors, queue included.", _SECONDS)

    def count_status(self, path: str, status: int) -> None:
        """Counts a response; unknown paths share one label, so that clients cannot grow the label set."""
        self._statuses[path if status != 404 else "other", str(status)] += 1

    def observe(self, tokenise_s: float, encode_s: float) -> None:
        """Records the times of one request, in seconds."""
        self._tokenise.observe(max(tokenise_s, 1e-6))
        self._encode.observe(max(encode_s, 1e-6))

    def flush(self) -> None:
        """Hands the counts to Ray."""
        _inc(self._texts, self.texts)
        _inc(self._tokens, self.tokens)
        _inc(self._truncated, self.truncated)
        self.texts = self.tokens = self.truncated = 0
        for (path, status), count in self._statuses.items():
            self._responses.inc(count, {"path": path, "status": status})
        self._statuses.clear()


class DeviceMetrics(_Flushed):
    """Metrics of a replica with a model: micro-batches, their fill, times, and the backlog."""

    def __init__(
        self, model: str, max_batch_tokens: int, backlog: Callable[[], tuple[int, int]], budget: Callable[[], int]
    ) -> None:
        """Registers the metrics.

        Args:
            model: Value of the label ``model``.
            max_batch_tokens: Padded tokens of a full micro-batch.
            backlog: Returns the waiting texts and tokens.
            budget: Returns the padded tokens that a micro-batch may have now.
        """
        label = {"model": model}
        self._backlog = backlog
        self._budget = budget
        self._max_batch_tokens = max_batch_tokens
        self._padded = self._real = 0
        self._forward = _with(Histogram("retrieval_forward_seconds", "One forward.", _SECONDS, ("model",)), label)
        self._wait = _with(
            Histogram("retrieval_queue_wait_seconds", "Longest wait in a micro-batch.", _SECONDS, ("model",)), label
        )
        fill = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
        self._fill = _with(
            Histogram("retrieval_batch_fill_ratio", "Padded tokens over the budget.", fill, ("model",)), label
        )
        self._real_tokens = _with(Counter("retrieval_forward_tokens", "Tokens in forwards.", ("model",)), label)
        self._padded_tokens = _with(
            Counter("retrieval_forward_padded_tokens", "Tokens in forwards, padding included.", ("model",)), label
        )
        self._failures = _with(
            Counter("retrieval_text_failures", "Texts that failed, by code.", _labels("model", "code")), label
        )
        self._waiting_texts = _with(Gauge("retrieval_backlog_texts", "Waiting texts.", ("model",)), label)
        self._budget_tokens = _with(
            Gauge(
                "retrieval_batch_budget_tokens",
                "Padded tokens that a micro-batch may have; fewer than configured after a lack of memory or time.",
                ("model",),
            ),
            label,
        )
        self._waiting_tokens = _with(Gauge("retrieval_backlog_tokens", "Waiting tokens.", ("model",)), label)

    def observe(self, report: MicroBatchReport) -> None:
        """Records one micro-batch."""
        self._forward.observe(report.forward_s)
        self._wait.observe(max(report.longest_wait_s, 1e-6))
        self._fill.observe(min(1.0, report.padded_tokens / self._max_batch_tokens))
        self._real += report.tokens
        self._padded += report.padded_tokens

    def count_failure(self, code: str, count: int = 1) -> None:
        """Counts texts without a result."""
        self._failures.inc(count, {"code": code})

    def flush(self) -> None:
        """Hands the counts and the backlog to Ray."""
        _inc(self._real_tokens, self._real)
        _inc(self._padded_tokens, self._padded)
        self._real = self._padded = 0
        texts, tokens = self._backlog()
        self._waiting_texts.set(texts)
        self._waiting_tokens.set(tokens)
        self._budget_tokens.set(self._budget())


def _inc(counter: Counter, value: int) -> None:
    if value:  # Ray refuses to add zero
        counter.inc(value)


def _with(metric: M, labels: dict[str, str]) -> M:
    metric.set_default_tags(dict(labels))  # Ray adds its own labels to the dict
    return metric


def _labels(*names: str) -> Any:  # Ray's annotation allows only one label
    return names
