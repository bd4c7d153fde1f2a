"""BGE-M3 through HTTP beside FlagEmbedding in one run: hybrid vectors, and reranking.

    python -m benchmarks.m3 --url http://localhost:8000 --folder models/bge-m3-small

The service computes on the same machine with the device, dtype and threads that it says; FlagEmbedding gets the same.
Only one of them has work at any time. Reranking is compared with the way that is usual where no service does it: encode
the query and all candidates with ``return_colbert_vecs`` and score pair by pair. Prints markdown and writes JSON beside
the other results.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from benchmarks import machine
from benchmarks.texts import KINDS, make_texts

_GROUP = 64  # texts that FlagEmbedding gets at once and that a client sends in one list
_CLIENTS = 4
_CANDIDATES = {10: 60, 100: 20, 1000: 4}  # how many, and how often that is asked in a round
_BATCH_SIZES = {"cpu": (8, 16, 32), "cuda": (16, 32, 64)}  # of FlagEmbedding; the best one counts
_RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Measures everything once a round and prints the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.m3", description=__doc__)
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--model", default="bge-m3-small", help="served as encoder and as reranker")
    parser.add_argument("--folder", type=Path, required=True, help="the same model, for FlagEmbedding")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of FlagEmbedding, as the service has")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    service = httpx.Client(base_url=options.url, timeout=600)
    card = service.get(f"/models/{options.model}").raise_for_status().json()
    reference = Reference(options.folder, card["device"], card["dtype"], options.threads)
    found: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, values in itertools.chain(_rates(options, reference), _times(options, reference)):
            found.setdefault(name, []).extend(values)
            print(f"{name}: {statistics.median(values):.4g}", flush=True)
    values = {name: statistics.median(all_of) for name, all_of in found.items()}
    values |= {f"{name}, p99": _p99(all_of) for name, all_of in found.items() if name.endswith("seconds")}
    print("\n" + table(values))
    saved = {
        "date": machine.today(), "machine": machine.describe_machine(), "model": card, "threads": options.threads,
        "rounds": found, "medians": values,
    }  # fmt: skip
    path = machine.results_file(_RESULTS, saved, "m3")
    path.write_text(json.dumps(saved, indent=1) + "\n")
    print(f"\nwritten to {path}")
    return 0


class Reference:
    """FlagEmbedding on the same folder."""

    def __init__(self, folder: Path, device: str, dtype: str, threads: int) -> None:
        """Loads it with the service's device, dtype and threads."""
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        import torch
        from FlagEmbedding import BGEM3FlagModel

        torch.set_num_threads(threads)
        self.batch_sizes = _BATCH_SIZES[device.partition(":")[0]]
        self._model = BGEM3FlagModel(str(folder), use_fp16=False, devices=[device], pooling_method="mean")
        if dtype == "bfloat16":
            self._model.model.to(torch.bfloat16)

    def hybrid(self, texts: list[str], batch_size: int, *, colbert: bool) -> Any:
        """All representations of some texts, as its users get them."""
        return self._model.encode(
            texts, batch_size=batch_size, max_length=512,
            return_dense=True, return_sparse=True, return_colbert_vecs=colbert,
        )  # fmt: skip

    def rerank(self, query: str, candidates: list[str]) -> list[float]:
        """The usual way: every vector leaves the model, pairs are scored one after the other."""
        asked = self.hybrid([query], 1, colbert=True)["colbert_vecs"][0]
        vectors = self.hybrid(candidates, self.batch_sizes[1], colbert=True)["colbert_vecs"]
        return [float(self._model.colbert_score(asked, each)) for each in vectors]


def _rates(options: argparse.Namespace, reference: Reference) -> Iterator[tuple[str, list[float]]]:
    """Hybrid texts a second: lists of 64 from four clients, and the same lists in-process."""
    for kind, colbert in itertools.product(KINDS, (False, True)):
        texts = make_texts(kind)
        groups = [texts[start : start + _GROUP] for start in range(0, len(texts) - _GROUP, _GROUP)]
        name = f"{kind}, {'with' if colbert else 'without'} ColBERT, texts/s"

        def ask(group: list[str], colbert: bool = colbert) -> None:
            body = {"items": group, "return_colbert": colbert, "model": options.model}
            httpx.post(f"{options.url}/vectorize-batch-hybrid", json=body, timeout=600).raise_for_status()

        yield f"service, {name}", [_GROUP * _rate(ask, groups, options.seconds, clients=_CLIENTS)]
        rates = [
            _rate(
                lambda group, size=size, colbert=colbert: reference.hybrid(group, size, colbert=colbert),
                groups, options.seconds / 2, clients=1,
            )
            for size in reference.batch_sizes
        ]  # fmt: skip
        yield f"FlagEmbedding, {name}", [_GROUP * max(rates)]


def _times(options: argparse.Namespace, reference: Reference) -> Iterator[tuple[str, list[float]]]:
    """Seconds of one request to rerank, nothing else being asked."""
    passages = make_texts("short")
    query = passages[-1]
    for count, times in _CANDIDATES.items():
        body = {"query": query, "candidates": passages[:count], "batch_size": 64, "model": options.model}
        yield (
            f"service, rerank {count}, seconds",
            [_seconds(lambda b=body: _rerank(options.url, b)) for _ in range(times)],
        )
    yield (
        "usual way, rerank 100, seconds",
        [_seconds(lambda: reference.rerank(query, passages[:100])) for _ in range(5)],
    )


def _rerank(url: str, body: dict[str, Any]) -> None:
    httpx.post(f"{url}/rerank", json=body, timeout=600).raise_for_status()


def _rate(work: Callable[[list[str]], None], groups: list[list[str]], seconds: float, *, clients: int) -> float:
    """Groups a second; work that was begun is finished and counted with its time."""
    began = time.monotonic()

    def client(number: int) -> int:
        done = 0
        while time.monotonic() - began < seconds:
            work(groups[(number + done * clients) % len(groups)])
            done += 1
        return done

    with ThreadPoolExecutor(clients) as pool:
        done = sum(pool.map(client, range(clients)))
    return done / (time.monotonic() - began)


def _p99(values: list[float]) -> float:
    """The 99th percentile; of less than a hundred values, the largest."""
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def table(values: dict[str, float]) -> str:
    """What docs/benchmarks.md shows."""
    lines = ["| hybrid texts/s | FlagEmbedding | this service | ratio |", "| --- | ---: | ---: | ---: |"]
    for kind in KINDS:
        for how in ("without", "with"):
            name = f"{kind}, {how} ColBERT, texts/s"
            ours, theirs = values[f"service, {name}"], values[f"FlagEmbedding, {name}"]
            lines.append(f"| {kind}, {how} ColBERT | {theirs:.1f} | {ours:.1f} | {ours / theirs:.2f} |")
    lines += ["", "| rerank, candidates of 21 tokens | p50 s | p99 s |", "| --- | ---: | ---: |"]
    for name in (*(f"service, rerank {count}" for count in _CANDIDATES), "usual way, rerank 100"):
        lines.append(f"| {name} | {values[f'{name}, seconds']:.2f} | {values[f'{name}, seconds, p99']:.2f} |")
    ratio = values["usual way, rerank 100, seconds"] / values["service, rerank 100, seconds"]
    lines.append(f"\nReranking 100 candidates takes 1/{ratio:.2f} of the usual way's time.")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
