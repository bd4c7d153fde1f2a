"""Settings of a replica's micro-batches and backlog."""

from typing import Annotated

from pydantic import Field

from serve_app.settings.frozen_settings import Auto, FrozenSettings


class BatchingSettings(FrozenSettings):
    """Bounds of the encoder's micro-batches and backlog, in tokens.

    Attributes:
        max_batch_tokens: Padded tokens in one forward. ``auto``: 384 on a CPU, where small
            micro-batches are as fast and keep others from waiting; 16,384 on a GPU.
        max_padding_tokens: Padding that one text may add to a micro-batch. ``auto``: 16 on a CPU, 1,024
            on a GPU: about what a forward costs before its first token.
        max_batch_seconds: Longest duration of a forward with several texts. Where a micro-batch of
            ``max_batch_tokens`` would take longer at the measured speed, it is made smaller.
        max_backlog_tokens: Waiting tokens of one replica beyond which the service answers 429.
        min_tokens_per_s: A forward that has run for over two minutes and is slower than this counts as hung, and its
            replica is replaced. ``auto``: 2 on a CPU, where a large model needs minutes for a text of 8,192 tokens,
            and more on shared cores; 100 on a GPU.
    """

    max_batch_tokens: Annotated[int, Field(ge=1)] | Auto = "auto"
    max_padding_tokens: Annotated[int, Field(ge=0)] | Auto = "auto"
    max_batch_seconds: float = Field(default=2.0, gt=0)
    max_backlog_tokens: int = Field(default=500_000, ge=1)
    min_tokens_per_s: Annotated[float, Field(gt=0)] | Auto = "auto"

    def for_device(self, device: str) -> tuple[int, int]:
        """``max_batch_tokens`` and ``max_padding_tokens``, ``auto`` resolved for ``cpu`` or ``cuda``."""
        batch, padding = (16_384, 1_024) if device.startswith("cuda") else (384, 16)
        return (
            batch if self.max_batch_tokens == "auto" else self.max_batch_tokens,
            padding if self.max_padding_tokens == "auto" else self.max_padding_tokens,
        )

    def min_speed_for_device(self, device: str) -> float:
        """``min_tokens_per_s``, ``auto`` resolved for ``cpu`` or ``cuda``."""
        slowest = 100.0 if device.startswith("cuda") else 2.0
        return slowest if self.min_tokens_per_s == "auto" else self.min_tokens_per_s
