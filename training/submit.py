"""``python -m training submit PAIRS --model-name NAME``: sends a fine-tune to a running service and watches it.

Nothing here trains: it is a client like any other, and needs none of the libraries that train.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from serve_app.jobs.retrieval_metrics import MEASURE

_POLL_S = 1.0
_RESTART_TIMEOUT_S = 60.0  # a restarting service is waited for
_ENDED = frozenset({"completed", "failed", "cancelled"})


def main(arguments: list[str]) -> int:
    """Submits a job and, with ``--watch``, follows it. Returns 0 for success, 1 for failure, 2 for a usage error."""
    options = _parser().parse_args(arguments)
    headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}
    with httpx.Client(base_url=options.url, timeout=60, headers=headers) as service:
        try:
            job = _post(service, options)
        except (httpx.HTTPError, OSError, UnicodeDecodeError) as error:
            print(f"not submitted: {_reason(error)}", file=sys.stderr)
            return 1
        print(f"job {job['job_id']}: {job['accepted']} examples, {job['ignored']} lines ignored")
        for line in job["ignored_lines"]:
            print(f"  line {line['line']}: {line['reason']}")
        if not options.watch:
            key = " -H 'Authorization: Bearer KEY'" if options.api_key else ""
            print(f"watch it: curl {options.url}/train-status/{job['job_id']}{key}")
            return 0
        try:
            return _watch(service, job["job_id"])
        except httpx.HTTPError as error:
            print(f"lost the connection to job {job['job_id']}, which continues: {_reason(error)}", file=sys.stderr)
            return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training submit", description=__doc__)
    parser.add_argument("pairs", type=Path, help="a file with lines of query, tab, passage")
    parser.add_argument("--model-name", required=True, help="the name that the result is served by")
    parser.add_argument("--url", default="http://localhost:8000", help="of the service")
    parser.add_argument("--api-key", default=os.environ.get("RETRIEVAL_API_KEY"), help="or RETRIEVAL_API_KEY is set")
    parser.add_argument("--kind", choices=["full", "lora", "qlora"], default="lora", help="what is tuned")
    parser.add_argument("--base-model", help="a served name; the service's default model if absent")
    for name, kind in (
        ("epochs", int), ("batch-size", int), ("learning-rate", float), ("max-seq-length", int),
        ("eval-fraction", float), ("seed", int),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, help="see /docs; the service's default if absent")
    parser.add_argument("--watch", action="store_true", help="follow the job to its end")
    return parser


def _post(service: httpx.Client, options: argparse.Namespace) -> Any:
    values = vars(options)
    optional = ("base_model", "epochs", "batch_size", "learning_rate", "max_seq_length", "eval_fraction", "seed")
    body = {name: values[name] for name in optional if values[name] is not None}
    body |= {"model_name": options.model_name, "text_content": options.pairs.read_bytes().decode("utf-8-sig")}
    if options.kind != "full":
        body["use_qlora"] = options.kind == "qlora"
    reply = service.post("/fine-tune" if options.kind == "full" else "/fine-tune-lora", json=body)
    reply.raise_for_status()
    return reply.json()


def _watch(service: httpx.Client, job_id: str) -> int:
    with tqdm(total=100, bar_format="{desc} |{bar}| {n:.0f}% {elapsed}") as bar:
        while True:
            job = _status(service, job_id)
            bar.update(job["progress"] - bar.n)
            if job["status"] in _ENDED:
                bar.set_description_str(job["status"])
                break
            left = f", {_minutes(job['seconds_left'])} left" if job["seconds_left"] else ""
            bar.set_description_str(f"{job['pending_reason'] or job['message']}{left}")
            time.sleep(_POLL_S)
    for warning in _warnings(service, job_id):
        print(f"warning: {warning}")
    print(job["error"] or job["message"])
    if job["metrics_before"] and job["metrics_after"]:
        print(table(job["metrics_before"], job["metrics_after"]))
    return 0 if job["status"] == "completed" else 1


def _status(service: httpx.Client, job_id: str) -> Any:
    until = time.monotonic() + _RESTART_TIMEOUT_S
    while True:
        try:
            reply = service.get(f"/train-status/{job_id}")
            if not _may_pass(reply.status_code) or time.monotonic() > until:
                reply.raise_for_status()
                return reply.json()
        except httpx.TransportError:
            if time.monotonic() > until:
                raise
        time.sleep(_POLL_S)


def _warnings(service: httpx.Client, job_id: str) -> list[str]:
    """Warnings among the job's events; the last one is its message, which is printed anyway."""
    try:
        reply = service.get(f"/jobs/{job_id}/events").raise_for_status()
        return [event["message"] for event in reply.json()["events"][:-1] if event["level"] == "warning"]
    except (httpx.HTTPError, ValueError, KeyError):
        return []  # the outcome of the job does not depend on them


def _may_pass(status_code: int) -> bool:
    return status_code == httpx.codes.TOO_MANY_REQUESTS or status_code >= 500


def table(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """Retrieval on the held-out examples, as text in columns."""
    measured = [name for name in before if name in after and _is_shown(name)]
    width = max([12, *(len(name) + 1 for name in measured)])
    rows = [f"{'held-out':<{width}}{'before':>8}{'after':>8}{'change':>9}"]
    rows += [f"{m:<{width}}{before[m]:>8.3f}{after[m]:>8.3f}{after[m] - before[m]:>+9.3f}" for m in measured]
    groups = f" in {int(after['groups'])} groups" if "groups" in after else ""
    rows.append(f"{int(after['queries'])} queries{groups}, {int(after['documents'])} documents")
    return "\n".join(rows)


def _is_shown(metric: str) -> bool:
    """All metrics of dense vectors and the main one of the other heads; sizes of the task have no cut-off."""
    return "@" in metric and ("_" not in metric or metric.endswith(f"_{MEASURE}"))


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        try:
            return f"{error.response.status_code}: {error.response.json()['detail']}"
        except (ValueError, KeyError):
            return f"{error.response.status_code}: {error.response.text[:200]}"
    if isinstance(error, UnicodeDecodeError):
        line = error.object.count(b"\n", 0, error.start) + 1
        return f"the file is not UTF-8 in line {line} (byte {error.start}); save it as UTF-8"
    if isinstance(error, httpx.ConnectError):
        return f"no service is reachable at {error.request.url.copy_with(raw_path=b'/')}; start it with `make serve`"
    return str(error)
