"""What a service started ends with it, however it ends."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serve_app.launch.watchdog import Watchdog, end_processes, marked_processes, processes_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")

ROOT = Path(__file__).parents[3]

SERVICE = """
import os, signal, subprocess, sys, time
from serve_app.launch.watchdog import Watchdog
mark, folder, how = sys.argv[1:]
watchdog = Watchdog(f"TEST_MARK={mark}", [folder])
os.environ["TEST_MARK"] = mark
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
for program in ("print(flush=True); import time; time.sleep(600)", deaf):
    child = subprocess.Popen([sys.executable, "-c", program], start_new_session=True, stdout=subprocess.PIPE)
    child.stdout.readline()
print("started", flush=True)
if how == "wait":
    time.sleep(600)
watchdog.finish()
"""


def service(mark: str, folder: Path, how: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVICE, mark, str(folder), how], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def wait_until_gone(mark: str, folder: Path) -> None:
    deadline = time.monotonic() + 20
    while folder.exists() or list(marked_processes(mark)):
        assert time.monotonic() < deadline, list(marked_processes(mark))
        time.sleep(0.05)


def test_after_a_kill_no_process_and_no_folder_is_left_even_of_those_that_ignore_sigterm(tmp_path: Path) -> None:
    folder, mark = tmp_path / "folder", secrets.token_hex(8)
    (folder / "deep").mkdir(parents=True)
    with service(mark, folder, "wait") as process:
        assert len(list(marked_processes(f"TEST_MARK={mark}"))) == 2
        process.kill()
    wait_until_gone(f"TEST_MARK={mark}", folder)


def test_a_child_without_the_mark_is_remembered_after_its_marked_parent_has_gone() -> None:
    mark = f"TEST_MARK={secrets.token_hex(8)}"
    name, _, value = mark.partition("=")
    program = f"unset {name}; exec 3<&0; env -u {name} sleep 600 & echo $!; read line <&3"
    parent = subprocess.Popen(
        ["bash", "-c", program],
        env={**os.environ, name: value},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    known = processes_of(mark, {})
    parent.kill()
    parent.wait()
    try:
        assert {parent.pid, child} <= known.keys()
        assert processes_of(mark, known) == {child: known[child]}
        assert processes_of(mark, {child: "another start"}) == {}
    finally:
        end_processes(mark, known)
    assert processes_of(mark, known) == {}


def test_a_service_that_ends_waits_until_nothing_is_left(tmp_path: Path) -> None:
    folder, mark = tmp_path / "folder", secrets.token_hex(8)
    folder.mkdir()
    with service(mark, folder, "finish") as process:
        assert process.wait(30) == 0
    assert not folder.exists()
    assert list(marked_processes(f"TEST_MARK={mark}")) == []


def test_the_mark_of_another_service_is_no_match() -> None:
    mark = f"TEST_MARK={secrets.token_hex(8)}"
    child = subprocess.Popen(["sleep", "600"], env={**os.environ, "TEST_MARK": mark.partition("=")[2] + "0"})
    try:
        Watchdog(mark).finish()
        assert child.poll() is None
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
