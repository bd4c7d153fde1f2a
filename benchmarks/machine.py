"""What the numbers depend on: processor, flags, memory, versions, date."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "bf16")
_PACKAGES = (
    "ray",
    "torch",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "fastapi",
    "uvicorn",
    "uvloop",
    "numpy",
)


def describe_machine() -> dict[str, Any]:
    """Processor, cores, flags that matter for speed, memory, GPUs, kernel, load before the run."""
    text = _read("/proc/cpuinfo")
    flags = set(re.findall(r"^flags\s*:(.*)$", text, re.M)[0].split()) if "flags" in text else set()
    return {
        "cpu": cpu_model(text),
        "cpu_count": os.cpu_count(),
        "threads_per_core": _threads_per_core(),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": gpus(),
        "kernel": platform.release(),
        "load_average_before": os.getloadavg()[0],
    }


def gpus() -> list[str]:
    """Name, memory and driver of each GPU, as ``nvidia-smi`` says; nothing where it is not."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    return found.stdout.splitlines()


def cpu_model(cpuinfo: str) -> str:
    """The processor's name, as the kernel gives it, with family and model where the name says little."""
    fields = dict(re.findall(r"^(model name|cpu family|model|vendor_id)\s*:\s*(.*)$", cpuinfo.split("\n\n")[0], re.M))
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields.get('cpu family')}, model {fields.get('model')})" if fields else name


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def revision(root: Path) -> str | None:
    """The commit that was measured, with a mark if files differ from it; nothing outside of a git checkout."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def today() -> str:
    """The date, as in the name of the results file."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def results_file(folder: Path, saved: Mapping[str, Any], what: str = "") -> Path:
    """``DATE-DEVICE[-WHAT].json`` in an existing or new folder; the device is the first GPU, else the processor.

    Args:
        folder: Of the results.
        saved: Has ``date`` and ``machine``.
        what: Was measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = saved["machine"]["gpus"]
    device = found[0].split(",")[0] if found else saved["machine"]["cpu"].split("(family")[0]
    name = "-".join(filter(None, (saved["date"], device, what)))
    return folder / (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".json")


def _threads_per_core() -> int | None:
    siblings = _read("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list").strip()
    return len(re.findall(r"\d+", siblings)) if siblings and "-" not in siblings else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
