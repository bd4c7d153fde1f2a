"""CPU time of processes and threads, from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
ROLES = ("encoder", "ingress", "haproxy", "ray")


@dataclass(frozen=True)
class CpuUse:
    """What was used in a stretch of time, in CPU seconds.

    Attributes:
        seconds: Length of the stretch.
        by_role: Of all processes of the service, by role; ``encoder`` is without the forward.
        forward: Of the threads that compute the forward.
        machine: Of everything on the machine.
    """

    seconds: float
    by_role: Mapping[str, float]
    forward: float
    machine: float

    @property
    def around(self) -> float:
        """Everything of the service but the forward."""
        return sum(self.by_role.values())


@dataclass(frozen=True)
class CpuReading:
    """CPU seconds up to the moment ``at``: of each process of the service, of the forward, of the machine."""

    at: float
    by_process: Mapping[int, float]
    roles: Mapping[int, str]
    forward: float
    machine: float

    def since(self, earlier: CpuReading) -> CpuUse:
        """What was used between two moments."""
        used = dict.fromkeys(ROLES, 0.0)
        for pid, seconds in self.by_process.items():
            used[self.roles[pid]] += seconds - earlier.by_process.get(pid, 0.0)
        forward = self.forward - earlier.forward
        used["encoder"] -= forward
        return CpuUse(self.at - earlier.at, used, forward, self.machine - earlier.machine)


class ServiceCpu:
    """The processes of one Ray cluster: all of the session (setsid) that its starter opened."""

    def __init__(self, session: int) -> None:
        """Takes the session's number, which is the starter's process id."""
        self._session = session
        self._forward_threads: frozenset[tuple[int, int]] = frozenset()

    def read(self) -> CpuReading:
        """CPU time so far."""
        by_process = dict(processes_of(self._session))
        return CpuReading(
            at=time.monotonic(),
            by_process=by_process,
            roles={pid: _role(pid) for pid in by_process},
            forward=sum(_thread_s(pid, tid) for pid, tid in self._forward_threads),
            machine=machine_s(),
        )

    def niceness(self) -> int:
        """How the encoder's processes are nice to others; Ray lowers the priority of its workers."""
        fields = [_stat(Path(f"/proc/{pid}")) for pid in self._encoders()]
        return max((int(f[16]) for f in fields if f), default=0)

    def _encoders(self) -> list[int]:
        return [pid for pid, _ in processes_of(self._session) if _role(pid) == "encoder"]

    def encoder_threads(self) -> dict[tuple[int, int], float]:
        """CPU seconds of each thread of the encoder replicas, by process and thread id."""
        return {(pid, tid): _thread_s(pid, tid) for pid in self._encoders() for tid in _threads(pid)}

    def find_forward_threads(self, before: Mapping[tuple[int, int], float], threads: int) -> float:
        """Learns which threads compute: those that used most CPU while the device was busy.

        Python names its threads only for itself before 3.14, so the kernel does not know a name. Under
        long texts the threads of the forward use nearly all of the encoder's CPU.

        Args:
            before: ``encoder_threads()`` before the device was made busy.
            threads: Torch threads of a replica.

        Returns:
            The share of the encoder's CPU that these threads used in that time.
        """
        used = {thread: s - before.get(thread, 0.0) for thread, s in self.encoder_threads().items()}
        found: list[tuple[int, int]] = []
        for replica in {pid for pid, _ in used}:
            found += sorted((t for t in used if t[0] == replica), key=lambda t: -used[t])[:threads]
        self._forward_threads = frozenset(found)
        return sum(used[t] for t in found) / max(sum(used.values()), 1e-9)


def machine_s() -> float:
    """CPU seconds of everything on this machine since it started, without idling."""
    user, nice, system, _, _, irq, softirq, steal = Path("/proc/stat").read_text().split()[1:9]
    return sum(map(int, (user, nice, system, irq, softirq, steal))) * _TICK_S


def processes_of(session: int) -> Iterator[tuple[int, float]]:
    """Id and CPU seconds of each process of a session."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (fields := _stat(Path(entry.path))) and int(fields[3]) == session:
            yield int(entry.name), (int(fields[11]) + int(fields[12])) * _TICK_S


def _stat(folder: Path) -> list[str]:
    """The fields of a ``stat`` file from the state on; nothing if the process is gone."""
    try:
        return (folder / "stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def _role(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "ray"
    if command.startswith(b"ray::ServeReplica:"):
        return "encoder" if b":Encoder-" in command else "ingress"
    return "haproxy" if b"bin/haproxy" in command else "ray"


def _threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def _thread_s(pid: int, tid: int) -> float:
    folder = Path(f"/proc/{pid}/task/{tid}")
    try:
        return int((folder / "schedstat").read_text().split()[0]) * 1e-9
    except (OSError, ValueError):  # a kernel without it: hundredths of a second
        fields = _stat(folder)
        return (int(fields[11]) + int(fields[12])) * _TICK_S if fields else 0.0
