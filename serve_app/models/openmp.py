"""OpenMP threads that sleep while they wait, and how many of them.

OpenMP's threads spin by default. On a machine that shares its cores (with a second replica, a
training) a 12 ms forward then takes a second. libgomp reads its settings once,
when torch loads it, so this module must be used before torch is imported.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


def wait_passively() -> None:
    """Makes OpenMP threads sleep instead of spin; existing environment variables win."""
    missing = {name: value for name, value in PASSIVE.items() if name not in os.environ}
    if missing and "torch" in sys.modules:
        logging.getLogger(__name__).warning(
            "torch is already loaded: its OpenMP threads spin while they wait. Set %s in the environment.",
            " ".join(f"{k}={v}" for k, v in PASSIVE.items()),
        )
    os.environ.update(missing)


def available_cpus() -> float:
    """CPUs this process may use: its affinity, bounded by the container's quota (cgroup v2)."""
    cpus = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cpus
    return cpus if quota == "max" else min(cpus, int(quota) / int(period))


def threads_for(num_cpus: float, replicas: int) -> int:
    """Torch threads of one replica.

    Args:
        num_cpus: CPUs reserved for the replica in Ray. One or more: that many threads.
        replicas: Below one reserved CPU, all CPUs but one, which HTTP and tokenising need, are divided by the
            number of replicas that may share the machine.
    """
    return max(1, int(num_cpus) if num_cpus >= 1 else int((available_cpus() - 1) / max(1, replicas)))
