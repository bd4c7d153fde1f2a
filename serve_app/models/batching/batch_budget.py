"""The size limit of a micro-batch: the configured one, reduced as memory and time require."""

from __future__ import annotations

import math
from collections import deque

_FIRST_TOKENS = 512  # initial budget where time bounds it, because the speed is not known yet
_LEAST_TOKENS = 64  # time never bounds the budget to less: so few tokens cost little beside the forward itself
_SPEED_OF_FORWARDS = 8  # forwards over which the speed is averaged
_GROWTH_AFTER_OUT_OF_MEMORY = 64  # micro-batches until the whole configured budget is regained


class BatchBudget:
    """The budget of a device's micro-batches in padded tokens; a text over it goes alone."""

    def __init__(self, max_tokens: int, *, max_seconds: float = math.inf) -> None:
        """Starts with the whole budget, or with a small one where time bounds it.

        Args:
            max_tokens: Upper bound.
            max_seconds: A micro-batch of several texts should not take longer.
        """
        self._max_tokens = max_tokens
        self._max_seconds = max_seconds
        self._for_memory = float(max_tokens)
        self._for_time = float(max_tokens) if math.isinf(max_seconds) else float(min(max_tokens, _FIRST_TOKENS))
        self._recent: deque[tuple[int, float]] = deque(maxlen=_SPEED_OF_FORWARDS)  # padded tokens, seconds

    @property
    def tokens(self) -> int:
        """The budget of the next micro-batch, in padded tokens."""
        return max(1, int(min(self._for_memory, self._for_time)))

    def observe(self, padded_tokens: int, seconds: float) -> None:
        """Learns from a forward that had enough memory.

        One that took too long bounds the next ones at its speed. A quick one that used at least half of the budget lets
        it grow: twofold where the time was the bound, slowly where it was the memory. A smaller one lets it grow, too,
        up to what the last forwards together computed in that time: a single slow forward must not bound a device that
        has only small micro-batches ever since.
        """
        self._recent.append((padded_tokens, seconds))
        if seconds > self._max_seconds:
            allowed = max(_LEAST_TOKENS, padded_tokens * self._max_seconds / seconds)
            self._for_time = min(self._for_time, allowed)
        elif 2 * padded_tokens >= self.tokens:
            if 2 * seconds <= self._max_seconds:
                self._for_time = min(self._max_tokens, 2 * self._for_time)
            self._for_memory = min(self._max_tokens, self._for_memory + self._max_tokens / _GROWTH_AFTER_OUT_OF_MEMORY)
        else:
            tokens_per_s = sum(n for n, _ in self._recent) / max(sum(s for _, s in self._recent), 1e-6)
            allowed = min(self._max_tokens, 2 * self._for_time, tokens_per_s * self._max_seconds)
            self._for_time = max(self._for_time, allowed)

    def shrink(self, padded_tokens: int) -> None:
        """Halves the budget after a forward of so many padded tokens that ran out of memory."""
        self._for_memory = max(1.0, min(self._for_memory, padded_tokens / 2))
