"""A small process that cleans up after a service, even one that was killed.

Ray's processes are not children of the one that started them, and HAProxy outlives the actor that started it. All of
them inherit the environment, so a variable with a unique value marks them. The watchdog reads a pipe that only the
service's process writes to; when the pipe closes, the service has ended, and the watchdog ends every marked process and
removes the service's folders. It runs this file as a script with the standard library alone, so that it starts in
milliseconds and stays small.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_TERMINATE_S = 3.0  # until SIGKILL
_KILL_S = 20.0
_POLL_S = 0.05
_BUSY_POLL_S = 1.0
_CALM_POLL_S = 5.0
_CALM_AFTER_S = 60.0
_READS = 2
_KERNEL_THREAD = 0x0020_0000  # of the flags in /proc/PID/stat
_FINISH_S = 40.0
_NEEDED = ("PATH", "LD_LIBRARY_PATH")


class Watchdog:
    """The handle of the service's process on its watchdog."""

    def __init__(self, mark: str, folders: Sequence[Path] = ()) -> None:
        """Starts the process.

        Args:
            mark: ``NAME=value`` in the environment of every process that belongs to the service.
            folders: Folders to remove at the end.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, mark, *map(str, folders)],
            stdin=subprocess.PIPE,
            env={name: os.environ[name] for name in _NEEDED if name in os.environ},  # without the mark of a service
            cwd="/",
            start_new_session=True,  # Ctrl-C must not reach it
        )

    def finish(self) -> None:
        """Returns when every process of the service has ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_FINISH_S)


class Seen(NamedTuple):
    """A process as earlier polls have read it.

    Attributes:
        identity: Start time and command name: a program that replaces itself (``exec``) or sets its title is read anew.
        is_watchdog: Whether it is a watchdog; those end by themselves.
        is_marked: Whether the mark is in its environment.
        reads: Number of reads after its first second; earlier reads may see the program that forked it.
    """

    identity: tuple[str, str]
    is_watchdog: bool = False
    is_marked: bool = False
    reads: int = 0


def processes_of(mark: str, known: Mapping[int, str], memory: dict[int, Seen] | None = None) -> dict[int, str]:
    """The living processes of a service, this one excepted.

    Args:
        mark: ``NAME=value`` in the environment of a process.
        known: Result of an earlier call. Ray's agents overwrite their environment when they set their title, so
            they are found only as children of a marked process, and must be remembered for when that has ended.
        memory: Kept between calls, so that a poll reads the environment of a process a few times only; updated.

    Returns:
        Start time by process id; both together are unique.
    """
    wanted, memory = mark.encode(), {} if memory is None else memory
    found: dict[int, str] = {}
    parents: dict[int, tuple[int, str]] = {}
    remembered: dict[int, Seen] = {}
    for pid in _process_ids():
        with suppress(OSError):  # it has ended
            with open(f"{_PROC}/{pid}/stat", "rb", buffering=0) as file:  # half the time of a Path's read_text
                head, _, fields = file.read().decode(errors="replace").rpartition(")")
            state, parent, *rest = fields.split()
            flags, started = int(rest[4]), rest[17]
            if state == "Z" or flags & _KERNEL_THREAD:
                continue
            seen = memory.get(pid)
            if seen is None or seen.identity != (started, head):
                seen = Seen((started, head))
            if seen.reads < _READS:
                seen = _read(pid, seen, wanted)
            remembered[pid] = seen
            if not seen.is_watchdog:
                parents[pid] = int(parent), started
                if seen.is_marked or known.get(pid) == started:
                    found[pid] = started
    while children := {pid: at for pid, (parent, at) in parents.items() if parent in found and pid not in found}:
        found |= children
    memory.clear()
    memory |= remembered
    return found


def _process_ids() -> list[int]:
    names = os.listdir(_PROC) if _PROC.is_dir() else ()
    return [int(name) for name in names if name.isdigit() and int(name) != os.getpid()]


def _read(pid: int, seen: Seen, wanted: bytes) -> Seen:
    folder, is_watchdog, is_marked = _PROC / f"{pid}", False, False
    with suppress(OSError):  # it belongs to another user
        is_watchdog = __file__.encode() in (folder / "cmdline").read_bytes().split(b"\0")
        is_marked = wanted in (folder / "environ").read_bytes().split(b"\0")
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - int(seen.identity[0]) / os.sysconf("SC_CLK_TCK")
    return Seen(seen.identity, is_watchdog, is_marked, seen.reads + (age_s >= 1))


def end_processes(mark: str, known: Mapping[int, str]) -> None:
    """SIGTERM for every process of the service, those that start meanwhile too; SIGKILL for those that stay."""
    began = time.monotonic()
    signalled: set[int] = set()
    memory: dict[int, Seen] = {}
    while known := processes_of(mark, known, memory):
        waited_s = time.monotonic() - began
        if waited_s > _KILL_S:
            print(f"these processes of the service do not end: {sorted(known)}", file=sys.stderr, flush=True)
            return
        for pid in known if waited_s > _TERMINATE_S else known.keys() - signalled:
            with suppress(OSError):  # it has ended, or changed its user
                os.kill(pid, signal.SIGKILL if waited_s > _TERMINATE_S else signal.SIGTERM)
        signalled |= known.keys()
        time.sleep(_POLL_S)


def _main(mark: str, *folders: str) -> None:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    known: dict[int, str] = {}
    memory: dict[int, Seen] = {}
    changed_at = time.monotonic()
    # readable when the service's process has ended
    while not select.select([sys.stdin], [], [], _poll_s(time.monotonic() - changed_at))[0]:
        before, known = known, processes_of(mark, known, memory)
        if known.keys() != before.keys():
            changed_at = time.monotonic()
    end_processes(mark, known)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _poll_s(unchanged_s: float) -> float:
    """Seconds until the next poll: fewer while the service starts or ends processes."""
    return _BUSY_POLL_S if unchanged_s < _CALM_AFTER_S else _CALM_POLL_S


if __name__ == "__main__":
    _main(*sys.argv[1:])
