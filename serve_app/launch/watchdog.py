"""A small process that cleans up after a service, however the service ended: by itself, by a signal, killed.

Ray's processes are not children of the one that started them, and HAProxy outlives the actor that started it. All of
them inherit the environment, so a variable with a unique value marks them. The watchdog reads a pipe that only the
service's process writes to; when the pipe closes the service has gone, and the watchdog ends every marked process and
removes the service's folders. It runs this file as a script with the standard library alone, so that it starts in
milliseconds and stays small.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_TERMINATE_S = 3.0  # until SIGKILL
_KILL_S = 20.0
_POLL_S = 0.05
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
    wanted = mark.encode()
    for entry in _PROC.iterdir() if _PROC.is_dir() else ():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:  # it has ended, or belongs to another user
                continue
            if wanted in environment.split(b"\0"):
                yield int(entry.name)


def end_processes(mark: str) -> None:
    """SIGTERM for every marked process, SIGKILL for those that do not heed it, and for those started meanwhile."""
    began = time.monotonic()
    told: set[int] = set()
    while pids := set(marked_processes(mark)):
        waited_s = time.monotonic() - began
        if waited_s > _KILL_S:
            print(f"these processes of the service do not end: {sorted(pids)}", file=sys.stderr, flush=True)
            return
        for pid in pids if waited_s > _TERMINATE_S else pids - told:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if waited_s > _TERMINATE_S else signal.SIGTERM)
        told |= pids
        time.sleep(_POLL_S)


def _main(mark: str, *folders: str) -> None:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    sys.stdin.buffer.read()  # returns when the service's process has closed the pipe or has ended
    end_processes(mark)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
