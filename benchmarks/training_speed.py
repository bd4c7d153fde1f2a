"""How fast the service trains, beside the plain script on the same data: pairs per second, and seconds until it starts.

    python -m benchmarks.training_speed --url http://localhost:8000 --folder models/multilingual-e5-small --pairs FILE

Both train the same pairs with the same loss, batch size, dtype, dropout, threads and priority, one after the other,
while the service idles; so the ratio shows what Ray, the reports and the checkpoints cost. The plain script switches
the encoder's dropout off beside an adapter, as the service does: most scripts do not, and are slower. Prints a table
and writes ``DATE-CPU-training.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks import machine
from benchmarks.children import environment
from serve_app.models.openmp import PASSIVE, threads_for

_ROOT = Path(__file__).resolve().parent.parent
_NICENESS = 19  # of the service's training workers
_CPUS_OF_A_WORKER = 0.5  # serve_config.yaml
_LOOK_S = 0.2
_ENDED = ("completed", "failed", "cancelled")


def main() -> int:
    """Measures both in turns and prints the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_speed", description=__doc__.split("\n")[0])
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--folder", type=Path, required=True, help="the base model, for the plain script")
    parser.add_argument("--base", help="the same as the service calls it; the folder's name if absent")
    parser.add_argument("--pairs", type=Path, required=True, help="lines of query, tab, passage")
    parser.add_argument("--count", type=int, default=640, help="how many of them (%(default)s)")
    parser.add_argument("--kind", choices=("full", "lora"), default="lora")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=_ROOT / "benchmarks" / "results", help="folder of the results")
    options = parser.parse_args()
    lines = options.pairs.read_text(encoding="utf-8").splitlines()[: options.count]
    found: dict[str, list[dict[str, float]]] = {"service": [], "plain": []}
    for number in range(options.rounds):
        for name, measure in (("service", _job), ("plain", _script)):
            found[name].append(measure(options, lines))
            print(f"round {number + 1}, {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    saved = {
        "date": machine.today(),
        "revision": machine.revision(_ROOT),
        "machine": machine.describe_machine(),
        "versions": machine.versions(),
        "kind": options.kind,
        "pairs": len(lines),
        "rounds": found,
        "medians": {name: _medians(rows) for name, rows in found.items()},
    }
    path = machine.results_file(options.out, saved, "training")
    path.write_text(json.dumps(saved, indent=1) + "\n")
    print(f"{table(saved)}\n\nwritten to {path}")
    return 0


def table(saved: dict[str, Any]) -> str:
    """The medians as markdown."""
    service, plain = saved["medians"]["service"], saved["medians"]["plain"]
    ratio = service["pairs_per_s"] / plain["pairs_per_s"]
    return "\n".join(
        [
            f"| {saved['kind']}, {saved['pairs']} pairs | pairs/s | first step after, s |",
            "|---|---:|---:|",
            f"| the service | {service['pairs_per_s']:.2f} | {service['start_s']:.1f} |",
            f"| plain script | {plain['pairs_per_s']:.2f} | {plain['start_s']:.1f} |",
            f"\nThe service trains {ratio:.2f} times as fast as the plain script (aim: 0.95).",
        ]
    )


def _job(options: argparse.Namespace, lines: list[str]) -> dict[str, float]:
    """A job of the service; nothing is held out, so it measures nothing before its first step."""
    with httpx.Client(base_url=options.url, timeout=60) as service:
        body: dict[str, Any] = {
            "text_content": "\n".join(lines), "model_name": f"speed-{int(time.time())}", "max_seq_length": 64,
            "base_model": options.base or options.folder.name, "eval_fraction": 0,
        }  # fmt: skip
        if options.kind == "lora":
            body |= {"use_qlora": False, "lora_dropout": 0}
        began = time.monotonic()
        reply = service.post("/fine-tune-lora" if options.kind == "lora" else "/fine-tune", json=body)
        job = reply.raise_for_status().json()
        started = ended = 0.0
        while job["status"] not in _ENDED:
            time.sleep(_LOOK_S)
            job = service.get(f"/train-status/{job['job_id']}").raise_for_status().json()
            now = time.monotonic()
            started = started or (now if job["total_steps"] else 0.0)
            ended = ended or (now if job["total_steps"] and job["steps"] == job["total_steps"] else 0.0)
        if job["status"] != "completed":
            raise SystemExit(f"the job is {job['status']}: {job['error']}")
        service.delete(f"/models/{job['model_name']}").raise_for_status()
    pairs = job["steps"] * 32
    return {"start_s": started - began, "train_s": ended - started, "pairs_per_s": pairs / (ended - started)}


def _script(options: argparse.Namespace, lines: list[str]) -> dict[str, float]:
    with tempfile.NamedTemporaryFile("w", suffix=".tsv", encoding="utf-8") as file:
        file.write("\n".join(lines))
        file.flush()
        threads, rate = threads_for(_CPUS_OF_A_WORKER, 1), "1e-3" if options.kind == "lora" else "5e-5"
        out = subprocess.run(
            [
                sys.executable, "-m", "benchmarks.plain_trainer", str(options.folder), file.name, "--kind",
                options.kind, "--threads", str(threads), "--niceness", str(_NICENESS), "--learning-rate", rate,
            ],
            cwd=_ROOT, env=environment(PASSIVE), capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    seen = json.loads(out.splitlines()[-1])
    return {"start_s": seen["start_s"], "train_s": seen["train_s"], "pairs_per_s": seen["pairs"] / seen["train_s"]}


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(row[name] for row in rows), 2) for name in rows[0]}


if __name__ == "__main__":
    sys.exit(main())
