"""How much a running service does as more clients come, beside sentence-transformers in-process on the same device.

    python -m benchmarks.capacity --url http://localhost:8000 --folder models/multilingual-e5-small

The clients of ``make bench`` are as many as two cores can serve; a GPU needs more of them before it is full. Asks the
default model for dense vectors, on the service's machine. Only one of the two has work at any time; in-process gets
the device and dtype that the service says, and the best of a few batch sizes. Prints a table and writes
``DATE-DEVICE-capacity.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from benchmarks import machine
from benchmarks.contenders import Clients, InProcessContender
from benchmarks.inprocess import Engine, Task
from benchmarks.load import Load, LoadResult
from benchmarks.texts import KINDS, Kind, Texts, counted_texts
from serve_app.models.model_source import find_model
from serve_app.models.tokenizer import TextTokenizer

_ROOT = Path(__file__).resolve().parent.parent
_LIST = 64
_RAMPS = {0: (1, 32, 256), _LIST: (1, 4, 16, 64)}  # texts of a request (0: one, not in a list) -> clients
_FULL_S = 4.0  # a median latency beyond which more clients would only wait longer
_GROUPS = (1, 256, 0)  # texts that are known at once in-process; 0: the whole pool
_CLIENTS_OF_A_PROCESS = 64  # one process of clients keeps one core busy


@dataclass(frozen=True)
class Row:
    """One measurement; latencies are of a request, or of a group in-process."""

    who: str
    kind: Kind
    texts_per_s: float
    tokens_per_s: float
    p50_ms: float
    p99_ms: float


def main() -> int:
    """Measures both and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__.split("\n")[0])
    parser.add_argument("--url", default="http://localhost:8000", help="on this machine")
    parser.add_argument("--folder", type=Path, required=True, help="the service's default model, for in-process")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement (%(default)s)")
    parser.add_argument("--out", type=Path, default=_ROOT / "benchmarks" / "results", help="folder of the results")
    options = parser.parse_args()
    health = httpx.get(f"{options.url}/health", timeout=60).raise_for_status().json()
    source = find_model(options.folder.name, options.folder.parent)
    tokenizer = TextTokenizer.of(source)
    texts = {kind: counted_texts(kind, tokenizer) for kind in KINDS}
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        reference = str(Path(scratch) / "reference.npz")
        tokens = {kind: pool.tokens for kind, pool in texts.items()}
        engine = Engine(str(options.folder), health["device"], health["dtype"], 1, tokens, reference)
        in_process = InProcessContender(engine, 0)
        try:
            rows = []
            for pool in texts.values():
                rows += [_told(row) for row in _service(options, pool, reference)]
                rows += [_told(_in_process(in_process, group, pool, options.seconds)) for group in _GROUPS]
        finally:
            in_process.stop()
    saved = {
        "date": machine.today(), "revision": machine.revision(_ROOT), "machine": machine.describe_machine(),
        "versions": machine.versions(), "setup": {name: health[name] for name in ("model", "device", "dtype")},
        "texts": {kind: round(pool.mean_tokens, 1) for kind, pool in texts.items()}, "rows": [asdict(r) for r in rows],
    }  # fmt: skip
    path = machine.results_file(options.out, saved, "capacity")
    path.write_text(json.dumps(saved, indent=1) + "\n")
    print(f"{table(saved)}\n\nwritten to {path}")
    return 0


def table(saved: dict[str, Any]) -> str:
    """The rows as markdown, a line for each load with both kinds of texts."""
    units = ("texts_per_s", "tokens_per_s", "p50_ms", "p99_ms")
    head = [f"{kind}: {unit}" for kind in KINDS for unit in ("texts/s", "tokens/s", "p50 ms", "p99 ms")]
    lines = [f"| | {' | '.join(head)} |", "|---" + "|---:" * len(head) + "|"]
    for who in dict.fromkeys(row["who"] for row in saved["rows"]):
        found = {row["kind"]: row for row in saved["rows"] if row["who"] == who}
        cells = [_cell(found[kind][unit], unit) if kind in found else "-" for kind in KINDS for unit in units]
        lines.append(f"| {who} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: float, unit: str) -> str:
    return f"{value:,.{0 if 'per_s' in unit else 1}f}"


def _service(options: argparse.Namespace, pool: Texts, reference: str) -> Iterator[Row]:
    port = urlsplit(options.url).port or 80
    for size, ramp in _RAMPS.items():
        for clients in ramp:
            processes = max(1, clients // _CLIENTS_OF_A_PROCESS)
            load = Load(port, pool.kind, pool.tokens, clients // processes, options.seconds, size, reference=reference)
            running = [Clients(load) for _ in range(processes)]
            what = f"{clients} {'client' if clients == 1 else 'clients'}, {f'lists of {size}' if size else 'one text'}"
            row = _row(f"service, {what}", pool, [each.result() for each in running])
            yield row
            if row.p50_ms > _FULL_S * 1000:
                break


def _row(who: str, pool: Texts, results: list[LoadResult]) -> Row:
    """Rates of all processes together; the median of their medians, the worst of their 99th percentiles."""
    tokens = sum(result.tokens / result.seconds for result in results)
    p50, p99 = statistics.median(r.p50_ms for r in results), max(r.p99_ms for r in results)
    return Row(who, pool.kind, tokens / pool.mean_tokens, tokens, p50, p99)


def _in_process(contender: InProcessContender, group: int, pool: Texts, seconds: float) -> Row:
    result = contender.run(Task(pool.kind, group, "passage" if group != 1 else "query", seconds))
    known = {0: "all texts known at once", 1: "one text"}.get(group, f"groups of {group}")
    rate = result.tokens / result.seconds
    return Row(f"in-process, {known}", pool.kind, rate / pool.mean_tokens, rate, result.p50_ms, result.p99_ms)


def _told(row: Row) -> Row:
    print(
        f"{row.kind}, {row.who}: {row.texts_per_s:,.0f} texts/s, p50 {row.p50_ms:.1f} ms", file=sys.stderr, flush=True
    )
    return row


if __name__ == "__main__":
    sys.exit(main())
