"""What thousands of ended jobs cost the job tracker: a start, a look, a page of ``GET /jobs``.

    python -m benchmarks.jobs_scale

Needs no service and no cluster: job folders are made in a temporary folder, and the cluster is one that has no jobs.
The longest time in which the event loop did nothing else is what a request of another client waits at most.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import machine
from serve_app.api.dialects.native.jobs_routes import job_body
from serve_app.api.encoding.json_stream import dumps
from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.job_policy import JobPolicy
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.job_service import JobService
from serve_app.jobs.lease import Lease
from serve_app.jobs.lease_file import LeaseHolder
from serve_app.jobs.ray_jobs import RayJobState
from serve_app.jobs.training_spec import TrainingSpec

_ROOT = Path(__file__).resolve().parent.parent
_METRICS = dict.fromkeys(("ndcg@10", "recall@1", "recall@10", "mrr@10", "queries", "documents"), 0.5)
_REPEATS = 30
_TICK_S = 0.001
_PAGE = 20  # of GET /jobs; one more is read to know whether there is another page


class IdleCluster:
    """Implements ``jobs.submit.RayJobs``: nothing runs."""

    async def submit(self, submission_id: str, folder: Path) -> None:
        """Starts nothing."""

    async def states(self) -> Mapping[str, RayJobState]:
        """Knows no Ray Job."""
        return {}

    async def stop(self, submission_id: str) -> None:
        """Stops nothing."""

    async def logs(self, submission_id: str) -> str:
        """Has printed nothing."""
        return ""


def main() -> int:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs_scale", description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=10_000, help="that have ended")
    parser.add_argument("--out", type=Path, default=_ROOT / "benchmarks" / "results", help="folder of the results")
    options = parser.parse_args()
    saved: dict[str, Any] = {
        "date": machine.today(),
        "revision": machine.revision(_ROOT),
        "machine": machine.describe_machine(),
        "versions": machine.versions(),
        "jobs": options.jobs,
        "milliseconds": asyncio.run(measure(options.jobs)),
    }
    path = machine.results_file(options.out, saved, "jobs-scale")
    path.write_text(json.dumps(saved, indent=1) + "\n")
    print("| with {jobs:,} ended jobs | ms |\n|---|---:|".format(**saved))
    for name, value in saved["milliseconds"].items():
        print(f"| {name} | {value:,.2f} |")
    print(f"\nwritten to {path}")
    return 0


async def measure(count: int) -> dict[str, float]:
    """Milliseconds, by what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "jobs"
        make_jobs(root, count)
        found = {}
        for which in ("first start, without an index", "start"):
            jobs = _jobs(root)
            took, blocked = await _watched(jobs.keep_lease)
            found |= {which: took, f"{which}: the loop blocked at most": blocked}
        while _unclean(jobs):
            await jobs.reconcile()  # the first ones after an upgrade remove old checkpoints
        found |= await _medians("look", jobs.reconcile)
        last: str | None = None

        async def page() -> None:
            nonlocal last
            records = await jobs.page(limit=_PAGE + 1, after=last)
            dumps([job_body(record) for record in records[:_PAGE]])
            last = records[_PAGE - 1].id

        async def same_page() -> None:
            nonlocal last
            last = job_id(count // 2)
            await page()

        found |= await _medians(f"page of {_PAGE} that nobody has asked for yet", page)
        found |= await _medians(f"page of {_PAGE} again", same_page)
    return {name: round(value * 1000, 3) for name, value in found.items()}


def make_jobs(root: Path, count: int) -> None:
    """Writes the folders of jobs that have ended, as a service would have."""
    for number in range(count):
        spec = TrainingSpec(job_id(number), f"model-{number}", "e5", "/models/e5", "/models", "e5")
        record = JobRecord.of_spec(spec, created_at=1e9 + number, accepted=40, ignored=0)
        ended = replace(
            record,
            status=JobStatus.COMPLETED,
            progress=100.0,
            message=f"completed: served as 'model-{number}'",
            metrics_before=_METRICS,
            metrics_after=_METRICS,
            published=True,
            ended_at=1e9 + number + 60,
        )
        folder = root / spec.job_id
        folder.mkdir(parents=True)
        JobFolder(folder).spec_file.write_text(spec.to_json(), encoding="utf-8")
        JobFolder(folder).record_file.write_text(ended.to_json(), encoding="utf-8")


def job_id(number: int) -> str:
    """A UUID."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def _jobs(root: Path) -> JobService:
    return JobService(root, IdleCluster(), JobPolicy(), Lease(root, LeaseHolder("benchmark", "the benchmark")))


def _unclean(jobs: JobService) -> bool:
    return jobs._repository is not None and bool(jobs._repository._unclean)


async def _watched(call: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Seconds that a call took, and the longest in which the event loop did not get to anything else."""
    longest, last = 0.0, time.perf_counter()

    async def tick() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(_TICK_S)
            now = time.perf_counter()
            longest, last = max(longest, now - last - _TICK_S), now

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    began = last = time.perf_counter()
    await call()
    took = time.perf_counter() - began
    await asyncio.sleep(2 * _TICK_S)
    ticking.cancel()
    return took, longest


async def _medians(name: str, call: Callable[[], Awaitable[object]]) -> dict[str, float]:
    """Seconds by the clock, and of CPU in all threads: those mean something on a busy machine, too."""
    clock, cpu = [], []
    for _ in range(_REPEATS):
        began, cpu_began = time.perf_counter(), time.process_time()
        await call()
        cpu.append(time.process_time() - cpu_began)
        clock.append(time.perf_counter() - began)
    return {name: statistics.median(clock), f"{name}: CPU": statistics.median(cpu)}


if __name__ == "__main__":
    sys.exit(main())
