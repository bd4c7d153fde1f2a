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

from serve_app.launch import watchdog
from serve_app.launch.watchdog import Seen, Watchdog, end_processes, processes_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")

ROOT = Path(__file__).parents[3]

SERVICE = """
import os, signal, subprocess, sys, time
from serve_app.launch import watchdog
from serve_app.launch.watchdog import Seen, Watchdog
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
    while folder.exists() or processes_of(mark, {}):
        assert time.monotonic() < deadline, processes_of(mark, {})
        time.sleep(0.05)


def test_after_a_kill_no_process_and_no_folder_is_left_even_of_those_that_ignore_sigterm(tmp_path: Path) -> None:
    folder, mark = tmp_path / "folder", secrets.token_hex(8)
    (folder / "deep").mkdir(parents=True)
    with service(mark, folder, "wait") as process:
        assert len(processes_of(f"TEST_MARK={mark}", {})) == 2
        process.kill()
    wait_until_gone(f"TEST_MARK={mark}", folder)


def test_a_child_without_the_mark_is_remembered_after_its_marked_parent_has_ended() -> None:
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
    assert processes_of(f"TEST_MARK={mark}", {}) == {}


def test_the_mark_of_another_service_is_no_match() -> None:
    mark = f"TEST_MARK={secrets.token_hex(8)}"
    child = subprocess.Popen(["sleep", "600"], env={**os.environ, "TEST_MARK": mark.partition("=")[2] + "0"})
    try:
        Watchdog(mark).finish()
        assert child.poll() is None
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


class FakeProc:
    """A folder such as /proc."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, pid: int, *, name: str = "python", environ: str = "", started: float = 0, flags: int = 0) -> None:
        """A process, started so many seconds after the boot."""
        (self.folder / f"{pid}").mkdir(exist_ok=True)
        ticks = int(started * os.sysconf("SC_CLK_TCK"))
        fields = ["S", "1", "0", "0", "0", "0", str(flags), *["0"] * 12, str(ticks), "0"]
        (self.folder / f"{pid}" / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}")
        (self.folder / f"{pid}" / "cmdline").write_text(f"{name}\0")
        (self.folder / f"{pid}" / "environ").write_text(f"A=1\0{environ}\0")


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeProc:
    monkeypatch.setattr(watchdog, "_PROC", tmp_path)
    return FakeProc(tmp_path)


def test_a_process_without_the_mark_is_read_twice_and_again_when_it_is_another_one(proc: FakeProc) -> None:
    pid, memory = 4_000_000, dict[int, Seen]()
    proc.put(pid)
    for _ in range(2):
        assert processes_of("M=1", {}, memory) == {}
    proc.put(pid, environ="M=1")
    assert processes_of("M=1", {}, memory) == {}, "it was read again"
    assert processes_of("M=1", {}).keys() == {pid}
    for change in ({"name": "raylet"}, {"started": 5.0}):
        proc.put(pid)
        for _ in range(3):
            assert processes_of("M=1", {}, memory) == {}
        proc.put(pid, environ="M=1", **change)  # type: ignore[arg-type]
        assert processes_of("M=1", {}, memory).keys() == {pid}, change
    (proc.folder / f"{pid}" / "stat").unlink()
    assert processes_of("M=1", {}, memory) == {}
    assert memory == {}


def test_a_process_is_read_at_each_poll_of_its_first_second(proc: FakeProc) -> None:
    now, pid, memory = time.clock_gettime(time.CLOCK_BOOTTIME), 4_000_000, dict[int, Seen]()
    proc.put(pid, started=now + 600)
    for _ in range(5):
        assert processes_of("M=1", {}, memory) == {}
    proc.put(pid, started=now + 600, environ="M=1")
    assert processes_of("M=1", {}, memory).keys() == {pid}


def test_kernel_threads_and_unreadable_processes_are_passed_over(proc: FakeProc) -> None:
    proc.put(4_000_000, environ="M=1", flags=0x0020_8040)
    proc.put(4_000_001, environ="M=1")
    (proc.folder / "4000001" / "environ").unlink()
    proc.put(4_000_002, environ="M=1")
    assert processes_of("M=1", {}).keys() == {4_000_002}


def test_a_process_that_may_not_be_ended_does_not_stop_the_others_from_ending(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = f"TEST_MARK={secrets.token_hex(8)}"
    env = {**os.environ, "TEST_MARK": mark.partition("=")[2]}
    denied, ended = (subprocess.Popen(["sleep", "600"], env=env) for _ in range(2))
    kill = os.kill

    def kill_with_permission(pid: int, number: int) -> None:
        if pid == denied.pid:
            raise PermissionError(1, "Operation not permitted")
        kill(pid, number)

    monkeypatch.setattr(os, "kill", kill_with_permission)
    monkeypatch.setattr(watchdog, "_KILL_S", 0.3)
    try:
        end_processes(mark, {})
        assert ended.wait(10) == -signal.SIGTERM
        assert f"do not end: [{denied.pid}]" in capsys.readouterr().err
    finally:
        monkeypatch.undo()
        denied.kill()
        denied.wait()


def test_polls_are_rare_once_nothing_changes() -> None:
    assert [watchdog._poll_s(unchanged_s) for unchanged_s in (0, 59, 61, 10_000)] == [1, 1, 5, 5]
