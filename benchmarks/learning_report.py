"""The tables of ``benchmarks.learning``, made from its results file and from nothing else."""

from __future__ import annotations

from typing import Any


def markdown(saved: dict[str, Any]) -> str:
    """The tables of a results file."""
    data, before = saved["data"], saved["before"]
    jobs = {job["kind"]: job for job in saved["jobs"]}
    lines = [
        f"{saved['date']}, {saved['machine']['cpu']}, {saved['machine']['cpu_count']} CPUs; {saved['base']} on "
        f"{data['name']}: {data['pairs']} pairs, {data['queries']} test queries, {data['documents']} documents",
        "",
        "| kind | order by | nDCG@10 | recall@10 | process runs after, s | first step after, s | done after, s |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in saved["quality"]:
        job = jobs.get(row["kind"], dict.fromkeys(("runs_s", "first_step_s", "done_s"), "-"))
        lines.append(
            f"| {row['kind']} | {row['method']} | {row['ndcg']:.3f} | {row['recall']:.3f} "
            f"| {job['runs_s']} | {job['first_step_s']} | {job['done_s']} |"
        )
    lines += ["", "| one quiet client | requests | failures | p50 ms | p99 ms |", "|---|---:|---:|---:|---:|"]
    for label, seen in [("nothing is trained", before)] + [(f"beside {kind}", jobs[kind]["during"]) for kind in jobs]:
        told = " | ".join(f"{seen[name]:g}" for name in ("requests", "failures", "p50_ms", "p99_ms"))
        lines.append(f"| {label} | {told} |")
    lines += [f"\n{job['kind']}: {job['message']}" for job in saved["jobs"] if job["status"] != "completed"]
    return "\n".join(lines)
