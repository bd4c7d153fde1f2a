"""What the service aims at, as ratios and distances within one run, and whether it got there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from benchmarks.rows import Rows
from benchmarks.texts import KINDS, Kind

_LIMIT_LISTS, _LIMIT_SINGLES, _LEAST_OVER_PLAIN = 0.9, 0.75, 3.0
_AROUND_MS, _QUIET_MS, _FORWARDS = 1.0, 5.0, 3.0


@dataclass(frozen=True)
class Aim:
    """One aim and what came of it; ``value`` is NaN if it was not measured."""

    what: str
    aim: str
    value: float
    met: bool

    def as_dict(self) -> dict[str, Any]:
        """For the results file."""
        return {"what": self.what, "aim": self.aim, "value": _rounded(self.value), "met": self.met}


def aims(rows: Rows) -> list[Aim]:
    """All aims; where texts matter, for both kinds."""
    found: list[Aim] = []
    for kind in KINDS:
        found += [
            _at_least(f"lists, share of the limit, {kind}", _LIMIT_LISTS, _throughput(rows, "lists", kind)),
            _at_least(f"32 clients, share of the limit, {kind}", _LIMIT_SINGLES, _throughput(rows, "32 clients", kind)),
            _at_least(f"32 clients, times the plain service, {kind}", _LEAST_OVER_PLAIN, _over_plain(rows, kind)),
            _at_most(f"32 clients, CPU ms a request around the forward, {kind}", _AROUND_MS, _around(rows, kind)),
            _at_most(f"one quiet client, ms more than in-process, {kind}", _QUIET_MS, _quiet(rows, kind)),
        ]
    for name in ("p50_ms", "p99_ms"):
        latency = rows.median("service", "query beside lists", "short", name)
        forward = rows.median("service", "query beside lists", "short", "forward_ms")
        label = f"a query beside lists of 256, {name.removesuffix('_ms')} in forwards"
        found.append(_at_most(label, _FORWARDS, latency / forward))
    return found


def _throughput(rows: Rows, case: Any, kind: Kind) -> float:
    return rows.ratio(("service", case, "texts_per_s"), ("in-process", case, "texts_per_s"), kind)


def _over_plain(rows: Rows, kind: Kind) -> float:
    return rows.ratio(("service", "32 clients", "texts_per_s"), ("plain", "32 clients", "texts_per_s"), kind)


def _around(rows: Rows, kind: Kind) -> float:
    return rows.median("service", "32 clients", kind, "around_cpu_ms")


def _quiet(rows: Rows, kind: Kind) -> float:
    ours = rows.median("service", "1 client", kind, "p50_ms")
    return ours - rows.median("in-process", "1 client", kind, "p50_ms")


def _at_least(what: str, bound: float, value: float) -> Aim:
    return Aim(what, f">= {bound:g}", value, value >= bound)


def _at_most(what: str, bound: float, value: float) -> Aim:
    return Aim(what, f"<= {bound:g}", value, value <= bound)


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
