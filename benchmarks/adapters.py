"""What it costs that many adapters share one base: the same clients ask the base, one adapter, or several in turns.

    python -m benchmarks.adapters --url http://localhost:8000 --pairs FILE

Trains two small adapters on the default model, unless ``--adapters`` names two that are served. One quiet client shows
the cost of a switch in a request; 32 clients show what it costs that micro-batches do not mix adapters. All cases are
measured in turns, so that a slower minute of the machine meets all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks import machine
from benchmarks.http_client import Connection, post_request
from benchmarks.texts import make_texts

_ROOT = Path(__file__).resolve().parent.parent
_CLIENTS = (1, 32)
_PAIRS = 64


def main() -> int:
    """Measures round after round and prints the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapters", description=__doc__.split("\n")[0])
    parser.add_argument("--url", default="http://localhost:8000", help="on this machine")
    parser.add_argument("--pairs", type=Path, help="lines of query, tab, passage to train two adapters with")
    parser.add_argument("--adapters", nargs=2, metavar="NAME", help="two served adapters of the default model")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=_ROOT / "benchmarks" / "results", help="folder of the results")
    options = parser.parse_args()
    if not options.adapters and not options.pairs:
        parser.error("--pairs or --adapters is needed")
    with httpx.Client(base_url=options.url, timeout=600) as service:
        base = service.get("/models").raise_for_status().json()["models"][0]["name"]
        adapters = options.adapters or [_train(service, options.pairs, number) for number in range(2)]
        cases = {
            "base": [base],
            "one adapter": adapters[:1],
            "two adapters in turns": adapters,
            "base and two adapters in turns": [base, *adapters],
        }
        port = httpx.URL(options.url).port or 80
        found: dict[str, list[dict[str, float]]] = {}
        for number in range(options.rounds):
            for (name, models), clients in itertools.product(cases.items(), _CLIENTS):
                seen = asyncio.run(_ask(port, models, clients, options.seconds))
                found.setdefault(f"{name}, {clients}", []).append(seen)
                print(f"round {number + 1}, {name}, {clients} clients: {seen}", file=sys.stderr, flush=True)
        if not options.adapters:
            for name in adapters:
                service.delete(f"/models/{name}").raise_for_status()
    medians = {n: {k: statistics.median(r[k] for r in rows) for k in rows[0]} for n, rows in found.items()}
    saved = {
        "date": machine.today(),
        "revision": machine.revision(_ROOT),
        "machine": machine.describe_machine(),
        "versions": machine.versions(),
        "base": base,
        "rounds": found,
        "medians": medians,
    }
    path = machine.results_file(options.out, saved, "adapters")
    path.write_text(json.dumps(saved, indent=1) + "\n")
    print(f"{table(medians, list(cases))}\n\nwritten to {path}")
    return 0


def table(medians: dict[str, dict[str, float]], cases: Sequence[str]) -> str:
    """The medians as markdown, with ratios to the base."""
    lines = ["| asked | 1 client, p50 ms | 32 clients, texts/s | of the base's |", "|---|---:|---:|---:|"]
    limit = medians["base, 32"]["texts_per_s"]
    for case in cases:
        one, many = medians[f"{case}, 1"], medians[f"{case}, 32"]
        rate = many["texts_per_s"]
        lines.append(f"| {case} | {one['p50_ms']:.1f} | {rate:.1f} | {rate / limit:.2f} |")
    return "\n".join(lines)


async def _ask(port: int, models: Sequence[str], clients: int, seconds: float) -> dict[str, float]:
    """Clients with one short text each at a time; every next request asks the next model."""
    texts = make_texts("short")
    requests = [
        post_request(port, "/vectorize", {"text": text, "model": model})
        for text, model in zip(texts, itertools.cycle(models), strict=False)
    ]
    numbers = itertools.count()
    times: list[float] = []
    connections = [await Connection.open(port) for _ in range(clients)]
    for request in requests[: 2 * len(models)]:  # every adapter is loaded
        await connections[0].send(request)
    began = time.perf_counter()

    async def client(connection: Connection) -> None:
        while (sent := time.perf_counter()) - began < seconds:
            await connection.send(requests[next(numbers) % len(requests)])
            times.append(time.perf_counter() - sent)

    await asyncio.gather(*map(client, connections))
    took = time.perf_counter() - began
    for connection in connections:
        connection.close()
    return {"texts_per_s": round(len(times) / took, 1), "p50_ms": round(statistics.median(times) * 1000, 2)}


def _train(service: httpx.Client, pairs: Path, number: int) -> str:
    lines = pairs.read_text(encoding="utf-8").splitlines()[number * _PAIRS : (number + 1) * _PAIRS]
    name = f"adapter-{number}-{int(time.time())}"
    body: dict[str, Any] = {"text_content": "\n".join(lines), "model_name": name, "use_qlora": False,
                            "max_seq_length": 32, "eval_fraction": 0}  # fmt: skip
    job = service.post("/fine-tune-lora", json=body).raise_for_status().json()
    while job["status"] in {"pending", "running"}:
        time.sleep(1)
        job = service.get(f"/train-status/{job['job_id']}").raise_for_status().json()
    if job["status"] != "completed":
        raise SystemExit(f"the adapter could not be trained: {job['error']}")
    return name


if __name__ == "__main__":
    sys.exit(main())
