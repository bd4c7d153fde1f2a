"""What all measurements share: the texts, how much to measure, what the clients do in each case."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.children import OutOfTimeError
from benchmarks.inprocess import TaskResult
from benchmarks.load import Load, LoadResult
from benchmarks.rows import Case
from benchmarks.texts import Kind, Texts

SINGLES, LIST_CLIENTS, LIST_SIZE = 32, 4, 64
QUIET_TEXTS = 32  # one quiet client asks for these again and again, so that all contenders see the same lengths
LOADS: tuple[Case, ...] = ("1 client", "32 clients", "lists")


@dataclass(frozen=True)
class Plan:
    """How much to measure.

    Attributes:
        rounds: How often everything is measured.
        seconds: Length of one measurement.
        idle_s: How long the service is watched idling; at least the ten seconds after which Ray has
            published its metrics.
        busy: Whether to measure beside a busy core, too.
        all_at_once: Whether to encode whole pools in-process, too.
        budget_s: A round that would end later is not begun, and no measurement after it.
    """

    rounds: int
    seconds: float
    idle_s: float
    busy: bool
    all_at_once: bool
    budget_s: float


@dataclass(frozen=True)
class Bench:
    """The plan, the texts, a file of in-process vectors to check replies with, whom to tell the progress."""

    plan: Plan
    texts: dict[Kind, Texts]
    reference: Path
    say: Callable[[str], None]
    began: float = field(default_factory=time.monotonic)

    def check_time(self) -> None:
        """To be called before each measurement.

        Raises:
            OutOfTimeError: The budget is used up.
        """
        if self.elapsed_s > self.plan.budget_s:
            raise OutOfTimeError

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began

    def load(self, port: int, kind: Kind, case: Case) -> Load:
        """The clients of a case."""
        clients, size, spread = {
            "1 client": (1, 0, QUIET_TEXTS),
            "32 clients": (SINGLES, 0, 0),
            "lists": (LIST_CLIENTS, LIST_SIZE, 0),
        }[case]
        seconds = self.seconds(case)
        return Load(port, kind, self.texts[kind].tokens, clients, seconds, size, spread, str(self.reference))

    def seconds(self, case: Case) -> float:
        """Length of a measurement; one client needs less."""
        return self.plan.seconds * (0.6 if case == "1 client" else 1.0)

    def values(self, kind: Kind, result: LoadResult | TaskResult) -> dict[str, float]:
        """The numbers that every contender has.

        Texts per second are tokens per second over the pool's mean length, so that it does not matter
        which texts happened to be within the time.
        """
        values = {
            "texts_per_s": result.tokens / result.seconds / self.texts[kind].mean_tokens,
            "p50_ms": result.p50_ms,
            "p99_ms": result.p99_ms,
            "seconds": result.seconds,
        }
        if isinstance(result, TaskResult):
            return values | {"batch_size": float(result.batch_size)}
        return values | {
            "requests": float(result.requests),
            "client_cpu_ms": result.client_cpu_s / max(1, result.requests) * 1000,
            "checked": float(result.checked),
            "least_cosine": result.least_cosine,
        }
