"""The lines that a training has written, as dictionaries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from serve_app.jobs.job_folder import JobFolder


def read_lines(job_dir: Path) -> list[dict[str, Any]]:
    """The lines of a job's ``training.jsonl``; those that are not JSON are left out."""
    path = JobFolder(job_dir).updates_file
    found = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
