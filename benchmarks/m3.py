"""BGE-M3 through HTTP beside FlagEmbedding in one run: hybrid vectors, and reranking.

    python -m benchmarks.m3 --url http://localhost:8000 --folder models/bge-m3-small

The service computes on the same machine with the dtype and threads that it says; FlagEmbedding gets the same. Only
one of them has work at any time. Reranking is compared with the way that is usual where no service does it: encode the
query and all candidates with ``return_colbert_vecs`` and score pair by pair. Prints markdown and writes JSON beside the
other results.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from benchmarks import machine
from benchmarks.texts import KINDS, make_texts

_GROUP = 64  # texts that FlagEmbedding gets at once and that a client sends in one list
_CLIENTS = 4
_CANDIDATES = (10, 100, 1000)
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
    reference = Reference(options.folder, card["dtype"], options.threads)
    found: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, value in _round(options, reference).items():
            found.setdefault(name, []).append(value)
            print(f"{name}: {value:.4g}", flush=True)
    values = {name: statistics.median(all_of) for name, all_of in found.items()}
    print("\n" + table(values))
    saved = {
        "date": machine.today(), "machine": machine.describe_machine(), "model": card, "threads": options.threads,
        "rounds": found, "medians": values,
    }  # fmt: skip
    path = _RESULTS / f"m3-{saved['date']}-{machine.slug(saved['machine']['cpu'])}.json"
    path.write_text(json.dumps(saved, indent=1) + "\n")
    print(f"\nwritten to {path}")
    return 0


class Reference:
    """FlagEmbedding on the same folder."""

    def __init__(self, folder: Path, dtype: str, threads: int) -> None:
        """Loads it with the service's dtype and threads."""
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        import torch
        from FlagEmbedding import BGEM3FlagModel

        torch.set_num_threads(threads)
        self._model = BGEM3FlagModel(str(folder), use_fp16=False, devices=["cpu"], pooling_method="mean")
        if dtype == "bfloat16":
            self._model.model.to(torch.bfloat16)

    def hybrid(self, texts: list[str], *, colbert: bool) -> Any:
        """All representations of some texts, as its users get them."""
        return self._model.encode(
            texts, batch_size=8, max_length=512, return_dense=True, return_sparse=True, return_colbert_vecs=colbert
        )

    def rerank(self, query: str, candidates: list[str]) -> list[float]:
        """The usual way: every vector leaves the model, pairs are scored one after the other."""
        asked = self.hybrid([query], colbert=True)["colbert_vecs"][0]
        vectors = self.hybrid(candidates, colbert=True)["colbert_vecs"]
        return [float(self._model.colbert_score(asked, each)) for each in vectors]


def _round(options: argparse.Namespace, reference: Reference) -> dict[str, float]:
    found: dict[str, float] = {}
    for kind in KINDS:
        texts = make_texts(kind)
        groups = [texts[start : start + _GROUP] for start in range(0, len(texts) - _GROUP, _GROUP)]
        for colbert in (False, True):
            name = f"{kind}, {'with' if colbert else 'without'} ColBERT, texts/s"

            def ask(group: list[str], colbert: bool = colbert) -> None:
                body = {"items": group, "return_colbert": colbert, "model": options.model}
                httpx.post(f"{options.url}/vectorize-batch-hybrid", json=body, timeout=600).raise_for_status()

            found[f"service, {name}"] = _GROUP * _rate(ask, groups, options.seconds, clients=_CLIENTS)

            def encode(group: list[str], colbert: bool = colbert) -> None:
                reference.hybrid(group, colbert=colbert)

            found[f"FlagEmbedding, {name}"] = _GROUP * _rate(encode, groups, options.seconds, clients=1)
    passages = make_texts("short")
    for count in _CANDIDATES:
        candidates = (passages * 2)[:count] if count <= len(passages) else passages
        body = {"query": passages[-1], "candidates": candidates, "batch_size": 64, "model": options.model}
        times = sorted(_seconds(lambda b=body: _rerank(options.url, b)) for _ in range(3 if count == 1000 else 9))
        found[f"service, rerank {count}, p50 s"] = statistics.median(times)
        found[f"service, rerank {count}, worst s"] = times[-1]
    found["usual way, rerank 100, p50 s"] = statistics.median(
        _seconds(lambda: reference.rerank(passages[-1], passages[:100])) for _ in range(3)
    )
    return found


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


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def table(values: dict[str, float]) -> str:
    """What the README shows."""
    lines = ["| hybrid texts/s | FlagEmbedding | this service | ratio |", "| --- | ---: | ---: | ---: |"]
    for kind in KINDS:
        for how in ("without", "with"):
            name = f"{kind}, {how} ColBERT, texts/s"
            ours, theirs = values[f"service, {name}"], values[f"FlagEmbedding, {name}"]
            lines.append(f"| {kind}, {how} ColBERT | {theirs:.1f} | {ours:.1f} | {ours / theirs:.2f} |")
    lines += ["", "| rerank, short candidates | p50 s | worst s |", "| --- | ---: | ---: |"]
    for count in _CANDIDATES:
        p50, worst = values[f"service, rerank {count}, p50 s"], values[f"service, rerank {count}, worst s"]
        lines.append(f"| this service, {count} | {p50:.2f} | {worst:.2f} |")
    lines.append(f"| encode all, score pair by pair, 100 | {values['usual way, rerank 100, p50 s']:.2f} | |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
