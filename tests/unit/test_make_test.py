"""``make test`` runs every test in two parts, both even if the first one fails, and fails if either does."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.service_process import ROOT

PYTEST = """#!/bin/sh
printf '%s\\n' "$*" >> {calls}
case "$*" in *--ignore*) exit {unit} ;; *) exit {cluster} ;; esac
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not on this machine")
@pytest.mark.parametrize(("unit", "cluster"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_both_parts_are_run_and_either_fails_the_whole(tmp_path: Path, unit: int, cluster: int) -> None:
    venv, calls = tmp_path / "venv", tmp_path / "calls"
    (venv / "bin").mkdir(parents=True)
    scripts = {"python": "#!/bin/sh\n", "pytest": PYTEST.format(calls=calls, unit=unit, cluster=cluster)}
    for name, script in scripts.items():
        (venv / "bin" / name).write_text(script)
        (venv / "bin" / name).chmod(0o755)
    for name in (".serve", ".dev"):  # installed already
        (venv / name).touch()
    make = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    run = subprocess.run(["make", "test", f"VENV={venv}"], cwd=ROOT, env=make, capture_output=True, check=False)
    assert (run.returncode == 0) == (unit == cluster == 0)
    first, second = (line.split() for line in calls.read_text().splitlines())
    folders = [word.removeprefix("--ignore=") for word in first if word.startswith("--ignore=")]
    assert "tests" in first, "but for what the second part runs"
    assert sorted(folders) == sorted(second)
    assert {folder.name for folder in (ROOT / "tests").iterdir() if (folder / "__init__.py").is_file()} == {
        "unit",
        *(Path(folder).name for folder in folders),
    }
