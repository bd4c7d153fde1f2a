from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from serve_app.models import openmp
from serve_app.models.openmp import PASSIVE, available_cpus, threads_for, wait_passively

ROOT = Path(__file__).parents[3]


def environment_that_torch_sees(folder: Path, **environment: str) -> dict[str, str]:
    """Imports the transformer in a new process, with a torch that only tells what it sees."""
    (folder / "torch.py").write_text("import os, sys\nprint(*map(os.environ.get, sys.argv[1:]))\nsys.exit()\n")
    ours = {name: value for name, value in os.environ.items() if name not in PASSIVE}
    process = subprocess.run(
        [sys.executable, "-c", "import serve_app.models.transformer", *PASSIVE],
        env=ours | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    return dict(zip(PASSIVE, process.stdout.split(), strict=True))


def test_threads_sleep_if_configured_before_torch_is_loaded(tmp_path: Path) -> None:
    assert environment_that_torch_sees(tmp_path) == PASSIVE


def test_existing_environment_variables_win(tmp_path: Path) -> None:
    seen = environment_that_torch_sees(tmp_path, GOMP_SPINCOUNT="1000")
    assert seen == {**PASSIVE, "GOMP_SPINCOUNT": "1000"}


def test_a_warning_reports_that_torch_is_already_loaded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in PASSIVE:
        monkeypatch.setenv(name, "")  # so that what is set below is taken back
        monkeypatch.delenv(name)
    monkeypatch.setitem(sys.modules, "torch", sys)
    wait_passively()
    assert "OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0" in caplog.text
    caplog.clear()
    wait_passively()  # now the environment says it
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("num_cpus", "replicas", "threads"),
    [
        (1, 1, 1),
        (4, 1, 4),
        (4, 3, 4),  # what is reserved is not shared
        (2.9, 1, 2),
        (0.5, 1, 7),  # nothing is promised: all but one, for HTTP
        (0.1, 2, 3),
        (0.1, 3, 2),
        (0, 16, 1),
        (0, 0, 7),
    ],
)
def test_threads_follow_from_reserved_cpus_or_are_shared_by_the_replicas(
    monkeypatch: pytest.MonkeyPatch, num_cpus: float, replicas: int, threads: int
) -> None:
    monkeypatch.setattr(openmp, "available_cpus", lambda: 8.0)
    assert threads_for(num_cpus, replicas) == threads


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("max 100000\n", 6.0),
        ("150000 100000\n", 1.5),
        ("50000 100000\n", 0.5),
        ("6400000 100000\n", 6.0),  # more than there are
        ("nonsense", 6.0),
        ("", 6.0),
        (None, 6.0),  # no cgroup v2
    ],
)
def test_available_cpus_are_the_affinity_bounded_by_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: str | None, cpus: float
) -> None:
    def read_text() -> str:
        if quota is None:
            raise FileNotFoundError
        return quota

    monkeypatch.setattr(openmp.os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(openmp, "Path", lambda _: SimpleNamespace(read_text=read_text))
    assert available_cpus() == cpus


def test_half_a_cpu_still_gives_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmp, "available_cpus", lambda: 0.5)
    assert threads_for(0.1, 1) == 1
