"""Whether fine-tunes learn, and what others notice meanwhile; everything through HTTP.

    python -m benchmarks.learning --url http://localhost:8000 --data FOLDER

``FOLDER`` has the layout of BEIR with ``train.pairs.tsv`` beside it. For each kind, pairs of the training part are
posted; the result and its base are then asked for the test part, whose queries were in no training. Prints markdown
tables and writes ``DATE-CPU-learning-BASE.json``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks import machine
from benchmarks.learning_report import markdown
from benchmarks.quiet_client import quiet_client
from benchmarks.retrieval_quality import Row, measure
from tests.retrieval import RetrievalSet, load, ndcg, recall

_ROOT = Path(__file__).resolve().parent.parent
_KINDS = ("full", "lora", "qlora")
_ENDED = ("completed", "failed", "cancelled")
_CHUNK = 32  # texts in a request
_TIMEOUT_S = 600
_TOP = 20  # documents of a query that are reranked
_SPARSE_WEIGHT = 0.3
_WITHOUT_RERANKING = 3  # rows of ``measure`` before it reranks
_SEED = 0
_QUIET_S = 20.0
_LOOK_S = 0.5


def run(options: argparse.Namespace, service: httpx.Client) -> dict[str, Any]:
    """Everything, as it goes into the results file."""
    base = options.base or service.get("/models").raise_for_status().json()["models"][0]["name"]
    pairs = _draw((options.data / "train.pairs.tsv").read_text(encoding="utf-8").splitlines(), options.pairs)
    data = part(load(options.data), queries=options.queries, documents=options.documents)
    _say(f"{len(pairs)} pairs; {len(data.queries)} test queries, {len(data.documents)} documents")
    with quiet_client(options.url) as before:
        time.sleep(_QUIET_S)
    rows = [{"kind": "base", **_as_dict(row)} for row in quality(service, data, base)]
    jobs = []
    for kind in options.kinds:
        name = f"learning-{kind}-{int(time.time())}"
        with quiet_client(options.url) as during:
            job = train(service, kind, pairs, model_name=name, base_model=base, **_shape(options))
        jobs.append({"kind": kind, "during": during.as_dict(), "failed": during.failures[:5], **job})
        if job["status"] == "completed":
            rows += [{"kind": kind, **_as_dict(row)} for row in quality(service, data, name)]
            if not options.keep:
                service.delete(f"/models/{name}").raise_for_status()
    return {
        "date": machine.today(),
        "revision": machine.revision(_ROOT),
        "machine": machine.describe_machine(),
        "versions": machine.versions(),
        "data": {"name": options.data.name, "pairs": len(pairs), "queries": len(data.queries),
                 "documents": len(data.documents)},
        "base": base,
        "settings": _shape(options),
        "before": before.as_dict(),
        "quality": rows,
        "jobs": jobs,
    }  # fmt: skip


def part(data: RetrievalSet, *, queries: int, documents: int) -> RetrievalSet:
    """Some queries among their own documents and a draw of the others: encoding all takes minutes a model."""
    draw = random.Random(_SEED)
    asked = sorted(draw.sample(range(len(data.queries)), min(queries, len(data.queries))))
    needed = sorted(set().union(*(data.relevant[i] for i in asked)))
    others = sorted(set(range(len(data.documents))) - set(needed))
    kept = needed + draw.sample(others, max(0, min(documents - len(needed), len(others))))
    place = {old: new for new, old in enumerate(kept)}
    return RetrievalSet(
        [data.documents[i] for i in kept],
        [data.queries[i] for i in asked],
        [{place[i] for i in data.relevant[query]} for query in asked],
    )


def quality(service: httpx.Client, data: RetrievalSet, model: str) -> list[Row]:
    """nDCG@10 and recall@10 of each representation that the model has, and of its reranking if it reranks."""
    _say(f"{model}: {len(data.documents) + len(data.queries)} texts are encoded")
    state = service.get(f"/models/{model}").raise_for_status().json()
    if "sparse" in state["capabilities"]:
        rows = measure(service, data, model=model, top=_TOP, sparse_weight=_SPARSE_WEIGHT)
        return list(rows if "rerank" in state["serves"] else islice(rows, _WITHOUT_RERANKING))
    scores = (
        _vectors(service, data.queries, model, is_query=True)
        @ _vectors(service, data.documents, model, is_query=False).T
    )
    return [Row("dense", ndcg(scores, data.relevant), recall(scores, data.relevant))]


def train(service: httpx.Client, kind: str, pairs: Sequence[str], **body: Any) -> dict[str, Any]:
    """One fine-tune from its submission to its end; the job's own words about it, and seconds since its submission.

    ``runs_s`` is when its process ran, ``first_step_s`` when the first step was taken (None if none was): between them
    libraries and model are loaded and the base is measured. ``done_s`` is its end.
    """
    body["text_content"] = "\n".join(pairs)
    if kind != "full":
        body["use_qlora"] = kind == "qlora"
    began = time.monotonic()
    reply = service.post("/fine-tune" if kind == "full" else "/fine-tune-lora", json=body)
    if reply.status_code != 200:
        raise SystemExit(f"{kind}: {reply.status_code} {reply.text[:300]}")
    job, stepped = _watch(service, reply.json()["job_id"], kind)
    return {
        "status": job["status"],
        "message": job["message"],
        "runs_s": round((job["started_at"] or job["ended_at"]) - job["created_at"], 1),
        "first_step_s": None if stepped is None else round(stepped - began, 1),
        "done_s": round(job["ended_at"] - job["created_at"], 1),
        "steps": job["steps"],
        "train_pairs": job["train_pairs"],
        "metrics_before": job["metrics_before"],
        "metrics_after": job["metrics_after"],
    }


def _watch(service: httpx.Client, job_id: str, kind: str) -> tuple[dict[str, Any], float | None]:
    """The job in the end, and the monotonic time at which it had taken a step."""
    told, stepped = "", None
    while True:
        job: dict[str, Any] = service.get(f"/train-status/{job_id}").raise_for_status().json()
        stepped = stepped or (time.monotonic() if job["steps"] else None)
        line = f"{kind}: {job['status']}, {job['progress']:.0f} %, {job['pending_reason'] or job['message']}"
        if line != told and (sys.stderr.isatty() or job["status"] in _ENDED):
            told = line
            print(f"\r{line[:110]:110}", end="\n" if job["status"] in _ENDED else "", file=sys.stderr, flush=True)
        if job["status"] in _ENDED:
            return job, stepped
        time.sleep(_LOOK_S)


def _vectors(service: httpx.Client, texts: Sequence[str], model: str, *, is_query: bool) -> np.ndarray[Any, Any]:
    found: list[list[float]] = []
    for start in range(0, len(texts), _CHUNK):
        body = {"items": list(texts[start : start + _CHUNK]), "is_query": is_query, "model": model}
        found += service.post("/vectorize-batch", json=body).raise_for_status().json()["vectors"]
    return np.array(found, np.float32)


def _draw(lines: Sequence[str], count: int) -> list[str]:
    return random.Random(_SEED).sample(lines, min(count, len(lines)))


def _shape(options: argparse.Namespace) -> dict[str, Any]:
    named = ("epochs", "batch_size", "max_seq_length", "learning_rate")
    return {name: value for name in named if (value := getattr(options, name)) is not None}


def _as_dict(row: Row) -> dict[str, Any]:
    return {"method": row.method, "ndcg": round(row.ndcg, 4), "recall": round(row.recall, 4)}


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__.split("\n")[0])
    parser.add_argument("--url", default="http://localhost:8000", help="where the service answers")
    parser.add_argument("--data", type=Path, required=True, help="a folder in BEIR layout with train.pairs.tsv")
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=list(_KINDS), help="full,lora,qlora")
    parser.add_argument("--pairs", type=int, default=1500, help="of the training part (%(default)s)")
    parser.add_argument("--base", help="a served model; the default one if absent")
    parser.add_argument("--queries", type=int, default=400, help="of the test part (%(default)s)")
    parser.add_argument("--documents", type=int, default=1500, help="that the queries are asked of (%(default)s)")
    parser.add_argument("--epochs", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    parser.add_argument("--max-seq-length", type=int, default=64, help="tokens read while training (%(default)s)")
    parser.add_argument("--learning-rate", type=float, help="the service's default for the kind if absent")
    parser.add_argument("--keep", action="store_true", help="do not delete the results")
    parser.add_argument("--out", type=Path, default=_ROOT / "benchmarks" / "results", help="folder of the results")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Measures, writes and prints; 1 if a job did not end well."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.kinds) - set(_KINDS)):
        parser.error(f"--kinds: {unknown[0]!r} is none of {', '.join(_KINDS)}")
    with httpx.Client(base_url=options.url, timeout=_TIMEOUT_S) as service:
        saved = run(options, service)
    path = machine.results_file(options.out, saved, f"learning-{saved['base']}")
    path.write_text(json.dumps(saved, indent=1) + "\n")
    print(f"{markdown(saved)}\n\nwritten to {path}")
    return 0 if all(job["status"] == "completed" for job in saved["jobs"]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
