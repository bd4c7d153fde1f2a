"""Identities of processes: a process's number alone is used again by the system after its end."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_STATE, _START_TIME = 0, 19  # fields of /proc/PID/stat behind the command, whose name may hold blanks
_DEAD_STATES = frozenset("ZX")


def this_process() -> str | None:
    """A unique identity: boot, process namespace, number and start time; None where there is no ``/proc``."""
    return _identity(os.getpid())


def raylet_process(environment: Mapping[str, str] = os.environ) -> str | None:
    """The same of the Ray node's main process, which starts all workers there; None outside of a worker.

    A worker that dies is replaced, and other workers continue. When this process ends, all of them end.
    """
    number = environment.get("RAY_RAYLET_PID", "")
    return _identity(int(number)) if number.isdecimal() else None


def _identity(number: int) -> str | None:
    try:
        return " ".join([*_place(), str(number), _stat(number)[_START_TIME]])
    except (OSError, IndexError):
        return None


def has_ended(process: str) -> bool:
    """True if the process with this identity has certainly ended; False for one that is not visible from here."""
    try:
        boot, namespace, number, start_time = process.split(" ")
        if (boot, namespace) != _place():
            return False  # of another machine or container
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it is there and another user's
        pass
    except (OSError, ValueError):
        return False
    try:
        stat = _stat(int(number))
    except OSError:
        return False
    return stat[_START_TIME] != start_time or stat[_STATE] in _DEAD_STATES


def _place() -> tuple[str, str]:
    return _BOOT.read_text(encoding="utf-8").strip(), os.readlink("/proc/self/ns/pid")


def _stat(number: int) -> list[str]:
    text = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()
