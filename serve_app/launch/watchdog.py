"""A small process that cleans up after a service, however the service ended: by itself, by a signal, killed.

Ray's processes are not children of the one that started them, and HAProxy outlives the actor that started it. All of
them inherit the environment, so a variable with a unique value marks them. The watchdog reads a pipe that only the
service's process writes to; when the pipe closes the service has gone, and the watchdog ends every marked process and
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_TERMINATE_S = 3.0  # until SIGKILL
_KILL_S = 20.0
_POLL_S = 0.05
_LOOK_S = 1.0
_FINISH_S = 40.0
_NEEDED = ("PATH", "LD_LIBRARY_PATH")


class Watchdog:
    """The handle that the service's process has on its watchdog."""

    def __init__(self, mark: str, folders: Sequence[Path] = ()) -> None:
        """Starts it.

        Args:
            mark: ``NAME=value`` in the environment of every process that belongs to the service.
            folders: Removed in the end.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, mark, *map(str, folders)],
            stdin=subprocess.PIPE,
            env={name: os.environ[name] for name in _NEEDED if name in os.environ},  # no mark of anybody
            cwd="/",
            start_new_session=True,  # Ctrl-C is not for it
        )

    def finish(self) -> None:
        """Returns when nothing of the service is left."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_FINISH_S)


def marked_processes(mark: str) -> Iterator[int]:
    """Ids of the processes that were started with ``NAME=value`` in their environment, this one excepted."""
    return iter(processes_of(mark, {}))


def processes_of(mark: str, known: Mapping[int, str]) -> dict[int, str]:
    """The living processes of a service, this one excepted.

    Args:
        mark: ``NAME=value`` in the environment of a process.
        known: What an earlier call returned. Ray's agents overwrite their environment when they set their title, so
            they are known as children of a marked process only, and must be remembered for the time when it is gone.

    Returns:
        Start time by process id; both together are unique.
    """
    wanted, watchdog = mark.encode(), __file__.encode()
    found: dict[int, str] = {}
    parents: dict[int, tuple[int, str]] = {}
    for entry in _PROC.iterdir() if _PROC.is_dir() else ():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        pid = int(entry.name)
        with suppress(OSError):  # it has ended, or belongs to another user
            state, parent, *rest = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if state == "Z" or watchdog in (entry / "cmdline").read_bytes().split(
                b"\0"
            ):  # each has its own work to end
                continue
            started = rest[17]
            parents[pid] = int(parent), started
            if known.get(pid) == started or wanted in (entry / "environ").read_bytes().split(b"\0"):
                found[pid] = started
    while children := {pid: at for pid, (parent, at) in parents.items() if parent in found and pid not in found}:
        found |= children
    return found


def end_processes(mark: str, known: Mapping[int, str]) -> None:
    """SIGTERM for every process of the service, those that start meanwhile too; SIGKILL for those that stay."""
    began = time.monotonic()
    told: set[int] = set()
    while known := processes_of(mark, known):
        waited_s = time.monotonic() - began
        if waited_s > _KILL_S:
            print(f"these processes of the service do not end: {sorted(known)}", file=sys.stderr, flush=True)
            return
        for pid in known if waited_s > _TERMINATE_S else known.keys() - told:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if waited_s > _TERMINATE_S else signal.SIGTERM)
        told |= known.keys()
        time.sleep(_POLL_S)


def _main(mark: str, *folders: str) -> None:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    known: dict[int, str] = {}
    while not select.select([sys.stdin], [], [], _LOOK_S)[0]:  # readable when the service's process has gone
        known = processes_of(mark, known)
    end_processes(mark, known)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
