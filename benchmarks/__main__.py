"""``python -m benchmarks``: measures, writes ``benchmarks/results/DATE-CPU.json`` and prints the tables."""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks import machine
from benchmarks.bench import Bench, Plan
from benchmarks.children import BenchmarkError
from benchmarks.report import markdown, results
from benchmarks.rounds import Run
from benchmarks.texts import KINDS, counted_texts
from serve_app.models.model_source import find_model
from serve_app.models.openmp import threads_for
from serve_app.models.tokenizer import TextTokenizer
from serve_app.settings.service_settings import Settings

_ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Parses the command line and does what it says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: does everything work?")
    parser.add_argument("--rounds", type=int, help="how often everything is measured")
    parser.add_argument("--seconds", type=float, help="length of one measurement")
    parser.add_argument("--budget", type=float, help="seconds after which no measurement is begun")
    parser.add_argument("--busy", action=argparse.BooleanOptionalAction, default=True, help="also beside a busy core")
    parser.add_argument("--out", type=Path, default=_ROOT / "benchmarks" / "results", help="folder of the results")
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="print the tables of a results file; measure nothing"
    )
    arguments = parser.parse_args()
    if arguments.table:
        print(markdown(json.loads(arguments.table.read_text())))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that everything started is stopped, too
    try:
        saved = measure(_plan(arguments))
    except BenchmarkError as error:
        print(f"no result: {error}", file=sys.stderr)
        return 1
    path = machine.results_file(arguments.out, saved, "quick" * arguments.quick)
    path.write_text(json.dumps(saved, indent=1) + "\n")
    print(f"\n{markdown(saved)}\n\nwritten to {path}")
    return 0


def measure(plan: Plan) -> dict[str, Any]:
    """Everything, as it goes into the results file."""
    began = time.monotonic()
    described = machine.describe_machine()
    config = yaml.safe_load((_ROOT / "serve_config.yaml").read_text())
    settings = Settings(**config["applications"][0]["args"])
    model = settings.models[0]
    source = find_model(model.name, settings.models_dir)
    tokenizer = TextTokenizer.of(source)
    texts = {kind: counted_texts(kind, tokenizer) for kind in KINDS}
    threads = threads_for(model.num_cpus, model.max_replicas) if model.threads == "auto" else model.threads
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        bench = Bench(plan, texts, Path(scratch) / "reference.npz", _say)
        run = Run(bench, _ROOT, source.folder, threads)
        run.measure()
    setup = {
        "model": run.health["model"],
        "device": run.health["device"],
        "dtype": run.health["dtype"],
        "niceness": run.niceness,
        "threads": threads,
        "seconds": plan.seconds,
        **{name: round(statistics.median(values), 4) for name, values in run.learned.items()},
        "took_s": round(time.monotonic() - began),
    }
    return results(
        run.rows,
        date=machine.today(),
        revision=machine.revision(_ROOT),
        machine=described,
        versions=machine.versions(),
        setup=setup,
        rounds=run.done,
        texts={
            kind: {"texts": len(t.values), "mean_tokens": round(t.mean_tokens, 1), "shortest": min(t.tokens),
                   "longest": max(t.tokens)}
            for kind, t in texts.items()
        },
    )  # fmt: skip


def _plan(arguments: argparse.Namespace) -> Plan:
    rounds, seconds, idle_s, budget_s = (1, 2.0, 11.0, 150.0) if arguments.quick else (3, 5.0, 12.0, 570.0)
    return Plan(
        rounds=arguments.rounds or rounds,
        seconds=arguments.seconds or seconds,
        idle_s=idle_s,
        busy=arguments.busy,
        all_at_once=not arguments.quick,
        budget_s=arguments.budget or budget_s,
    )


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
