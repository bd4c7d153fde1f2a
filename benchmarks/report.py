"""The results file, and the tables that are made from it and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.aims import aims
from benchmarks.cpu import ROLES
from benchmarks.rows import Case, Contender, Measurement, Rows
from benchmarks.texts import KINDS, Kind

_QUIET_CORES = 0.1
_ROWS: tuple[tuple[Contender, Case, str], ...] = (
    ("in-process", "all at once", "in-process, all texts known at once"),
    ("in-process", "lists", "in-process, groups of 256: the limit of lists"),
    ("in-process, all CPUs", "lists", "in-process, groups of 256, a thread for each CPU"),
    ("service", "lists", "**this service, 4 clients with lists of 64**"),
    ("in-process", "32 clients", "in-process, groups of 32: the limit of singles"),
    ("in-process, all CPUs", "32 clients", "in-process, groups of 32, a thread for each CPU"),
    ("service", "32 clients", "**this service, 32 clients with one text**"),
    ("plain", "32 clients", "plain service, 32 clients with one text"),
    ("in-process", "1 client", "in-process, one text"),
    ("service", "1 client", "**this service, 1 client with one text**"),
    ("plain", "1 client", "plain service, 1 client with one text"),
)


def results(rows: Rows, **facts: Any) -> dict[str, Any]:
    """Everything that goes into the results file."""
    return {
        **facts,
        "aims": [aim.as_dict() for aim in aims(rows)],
        "measurements": [asdict(m) | {"values": _rounded(m.values)} for m in rows.all],
    }


def markdown(saved: dict[str, Any]) -> str:
    """The tables of a results file."""
    rows = Rows(Measurement(**m) for m in saved["measurements"])
    parts = [_head(saved), _throughput(rows, busy=False)]
    if rows.has(busy=True):
        parts += ["Beside a process that keeps one core busy, short texts:", _throughput(rows, busy=True)]
    parts += [_cpu(rows), _idle(saved), _beside(rows), _aims(saved)]
    return "\n\n".join(parts)


def _head(saved: dict[str, Any]) -> str:
    machine, setup, texts = saved["machine"], saved["setup"], saved["texts"]
    others = [
        m["values"]["other_cores"] for m in saved["measurements"] if "other_cores" in m["values"] and not m["busy"]
    ]
    lengths = "; ".join(
        f"{k}: {t['mean_tokens']:.0f} tokens ({t['shortest']} to {t['longest']})" for k, t in texts.items()
    )
    lines = [
        f"{saved['date']}, {machine['cpu']}, {machine['cpu_count']} CPUs, {' '.join(machine['flags'])}; "
        f"revision {saved['revision']}",
        f"{setup['model']}, {setup['device']}, {setup['dtype']}, {setup['threads']} thread(s); "
        f"{saved['rounds']} round(s) of {setup['seconds']:g} s, medians; "
        + ", ".join(f"{k} {v}" for k, v in saved["versions"].items()),
        f"Texts: {lengths}.",
        f"While it was measured, something else used {sum(others) / max(1, len(others)):.2f} cores on average"
        + (f" and {max(others):.2f} at worst" if others else "")
        + (": **too much, measure again**." if sum(others) > _QUIET_CORES * len(others) else "."),
        _agreement(saved),
    ]
    return "  \n".join(lines)


def _agreement(saved: dict[str, Any]) -> str:
    values = [m["values"] for m in saved["measurements"] if m["values"].get("checked")]
    checked = sum(v["checked"] for v in values)
    worst = min((v["least_cosine"] for v in values), default=math.nan)
    return f"{checked:.0f} vectors in replies were compared with the in-process ones; the worst cosine is {worst:.6f}."


def _throughput(rows: Rows, *, busy: bool) -> str:
    kinds: Sequence[Kind] = KINDS[:1] if busy else KINDS
    head = [""] + [f"{kind}: {unit}" for kind in kinds for unit in ("texts/s", "p50 ms", "p99 ms")]
    table = []
    for contender, case, label in _ROWS:
        cells = [
            _number(rows.median(contender, case, kind, name, busy=busy))
            for kind in kinds
            for name in ("texts_per_s", "p50_ms", "p99_ms")
        ]
        if any(cell != "-" for cell in cells):
            table.append([label, *cells])
    return _table(head, table)


def _cpu(rows: Rows) -> str:
    names = {"forward_cpu_ms": "forward", "around_cpu_ms": "around it"}
    names |= {f"{role}_cpu_ms": role if role != "ray" else "rest of Ray" for role in ROLES}
    names |= {"around_and_idle_cpu_ms": "around it, idling included", "client_cpu_ms": "the clients' own"}
    loads: tuple[Case, ...] = ("32 clients", "lists", "1 client")
    table = [
        [f"{case}, {kind}", *(_number(rows.median("service", case, kind, name), 2) for name in names)]
        for case in loads
        for kind in KINDS
    ]
    return _table(["CPU ms a request", *names.values()], table)


def _beside(rows: Rows) -> str:
    def value(name: str) -> str:
        return _number(rows.median("service", "query beside lists", "short", name))

    return (
        f"A single query while four clients send lists of 256 mixed texts: p50 {value('p50_ms')} ms, "
        f"p99 {value('p99_ms')} ms; a micro-batch takes {value('forward_ms')} ms on average."
    )


def _aims(saved: dict[str, Any]) -> str:
    table = [[a["what"], a["aim"], *_outcome(a)] for a in saved["aims"]]
    return _table(["aim", "", "result", ""], table)


def _outcome(aim: dict[str, Any]) -> tuple[str, str]:
    if aim["value"] is None:
        return "-", "not measured"
    return f"{aim['value']:.2f}", "met" if aim["met"] else "**not met**"


def _idle(saved: dict[str, Any]) -> str:
    cores = {role: saved["setup"][f"idle_cores_{role}"] for role in ROLES}
    parts = ", ".join(f"{role if role != 'ray' else 'rest of Ray'} {value:.3f}" for role, value in cores.items())
    return f"Without requests the cluster uses {sum(cores.values()):.3f} cores ({parts})."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float, digits: int = 1) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:,.0f}"


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in values.items() if not math.isnan(value)}
