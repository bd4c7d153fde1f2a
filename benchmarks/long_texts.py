"""Seconds and memory of texts at a BGE-M3's limit of 8,192 tokens, through HTTP.

    python -m benchmarks.long_texts --url http://localhost:8000

For each request the peak memory of the process that computes it, above what it had before: of the encoder for one text
with all representations, of the reranker for one candidate and for four, which should need no more than one. Reads
``/proc``, so it runs on the service's machine, as the service's user or root. Prints a table.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import httpx

_WORDS = ("rotate", "the", "log", "file", "before", "disk", "is", "full")  # one token each
_TOKENS = 8192


def main() -> None:
    """Asks and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_texts", description=__doc__.split("\n")[0])
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--model", default="bge-m3-small", help="served as encoder and as reranker")
    options = parser.parse_args()
    text = " ".join(_WORDS[i % len(_WORDS)] for i in range(_TOKENS + 100))
    encoder, reranker = (_process(f"{kind}-{options.model.replace('/', '-')}") for kind in ("Encoder", "Reranker"))
    print("| request | seconds | memory before, MB | peak above it, MB |\n|---|---:|---:|---:|")
    with httpx.Client(base_url=options.url, timeout=1800) as service:
        model = {"model": options.model}
        service.post("/vectorize-hybrid", json={"text": "warm", **model}).raise_for_status()
        service.post("/rerank", json={"query": "warm", "candidates": ["up"], **model}).raise_for_status()
        _row(service, encoder, "dense", "/vectorize", {"text": text, **model})
        _row(service, encoder, "dense + sparse", "/vectorize-hybrid", {"text": text, **model})
        colbert = {"text": text, "return_colbert": True, **model}
        _row(service, encoder, "dense + sparse + ColBERT", "/vectorize-hybrid", colbert)
        for count in (1, 4):
            candidates = [f"{number} {text}" for number in range(count)]
            body = {"query": text[:100], "candidates": candidates, **model}
            _row(service, reranker, f"rerank {count}", "/rerank", body)


def _row(service: httpx.Client, process: Path, name: str, path: str, body: dict[str, Any]) -> None:
    before = _mb(process, "VmRSS")
    (process / "clear_refs").write_text("5")  # forget the peak so far
    began = time.monotonic()
    reply = service.post(path, json=body)
    took = time.monotonic() - began
    if reply.status_code != 200:
        raise SystemExit(f"{path}: {reply.status_code} {reply.text[:300]}")
    print(f"| {name} | {took:.1f} | {before:.0f} | {_mb(process, 'VmHWM') - before:.0f} |", flush=True)


def _process(deployment: str) -> Path:
    """The folder in ``/proc`` of the replica."""
    title = f"ray::ServeReplica:retrieval:{deployment}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cmdline").read_bytes().startswith(title):
                    return entry
            except OSError:
                continue
    raise SystemExit(f"there is no replica of {deployment} on this machine")


def _mb(process: Path, name: str) -> float:
    for line in (process / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"{process}/status has no {name}")


if __name__ == "__main__":
    main()
