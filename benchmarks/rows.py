"""What was measured: single measurements, and the medians of their rounds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.texts import Kind

Contender = Literal["service", "in-process", "in-process, all CPUs", "plain"]
Case = Literal["1 client", "32 clients", "lists", "all at once", "query beside lists"]


@dataclass(frozen=True)
class Measurement:
    """One measurement of one contender.

    Attributes:
        contender: Whose.
        case: What the clients did. In-process: what was known at once, the same number of texts.
        kind: Which texts.
        busy: Whether another process kept a core busy meanwhile.
        round: In which round.
        values: Numbers by name; the unit is in the name.
    """

    contender: Contender
    case: Case
    kind: Kind
    busy: bool
    round: int
    values: dict[str, float] = field(default_factory=dict)


class Rows:
    """All measurements of a run."""

    def __init__(self, measurements: Iterable[Measurement] = ()) -> None:
        """Takes what there is already."""
        self.all: list[Measurement] = list(measurements)

    def median(self, contender: Contender, case: Case, kind: Kind, name: str, *, busy: bool = False) -> float:
        """The median of one number over the rounds; NaN if nobody measured it."""
        return _median([m.values[name] for m in self._find(contender, case, kind, busy) if name in m.values])

    def ratio(
        self, over: tuple[Contender, Case, str], under: tuple[Contender, Case, str], kind: Kind, *, busy: bool = False
    ) -> float:
        """The median over the rounds of a ratio within a round, because a shared machine changes its pace."""
        below = {m.round: m.values for m in self._find(under[0], under[1], kind, busy)}
        return _median(
            [
                m.values[over[2]] / below[m.round][under[2]]
                for m in self._find(over[0], over[1], kind, busy)
                if m.round in below
            ]
        )

    def has(self, *, busy: bool) -> bool:
        """Whether there is any measurement with or without a busy core."""
        return any(m.busy is busy for m in self.all)

    def _find(self, contender: Contender, case: Case, kind: Kind, busy: bool) -> list[Measurement]:
        wanted = (contender, case, kind, busy)
        return [m for m in self.all if (m.contender, m.case, m.kind, m.busy) == wanted]


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else math.nan
