"""The record of a job's split at its first attempt: metrics of two different splits cannot be compared."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from serve_app.domain.files import replace_file
from serve_app.jobs.job_folder import JobFolder
from training.data.splitting import Split

SPLIT_CHANGED = (
    "another version of this program split the examples when the job began; they are split and the base is measured "
    "again; earlier attempts may have trained on queries that are held out now, so the metrics of the result may be "
    "too high"
)


def record_split(job_dir: Path, parts: Split) -> bool:
    """Records in the job's folder how its examples are split.

    Returns:
        Whether an earlier attempt has recorded the same split.
    """
    path = JobFolder(job_dir).split_file
    queries = [[example.query for example in part] for part in (parts.train, parts.held_out)]
    split = hashlib.sha256(json.dumps(queries).encode()).hexdigest()
    if path.is_file() and path.read_text(encoding="utf-8").strip() == split:
        return True
    replace_file(path, f"{split}\n".encode())
    return False
