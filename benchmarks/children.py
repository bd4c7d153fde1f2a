"""Child processes that are asked by lines on their input and answer by lines on their output."""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, cast


class BenchmarkError(Exception):
    """The measurement can not go on; the message says why."""


class OutOfTimeError(Exception):
    """The time that the run may take is over."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what our own imports have put there, and with ``extra``."""
    dropped = {"TOKENIZERS_PARALLELISM", "RAY_ADDRESS"}
    return {**{k: v for k, v in os.environ.items() if k not in dropped}, **(extra or {})}


def die_with_parent(niceness: int = 0) -> None:
    """For a new process: be nice, and ask the kernel for an end when the one that started it is gone."""
    os.nice(niceness)
    prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux
    if prctl is not None:
        prctl(1, signal.SIGTERM)


class Child:
    """A Python module of this package in a process of its own."""

    def __init__(self, module: str, *arguments: str, extra: Mapping[str, str] | None = None, niceness: int = 0) -> None:
        """Starts ``python -m benchmarks.module arguments``, with a priority as ``nice`` gives it."""
        self._name = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment({"TQDM_DISABLE": "1", **(extra or {})}),
            preexec_fn=lambda: die_with_parent(niceness),
            text=True,
            bufsize=1,
        )
        self._out = cast(IO[str], self._process.stdout)

    def tell(self, line: str) -> None:
        """Writes a line."""
        cast(IO[str], self._process.stdin).write(line + "\n")

    def line(self, timeout_s: float) -> str:
        """The next line.

        Raises:
            BenchmarkError: None came in time, or the process ended.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                raise BenchmarkError(f"{self._name} did not answer within {timeout_s:.0f} s")
        line = self._out.readline()
        if not line:
            raise BenchmarkError(f"{self._name} ended, see above")
        return line.strip()

    @property
    def running(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ends the process."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def busy_core() -> Iterator[None]:
    """Another process keeps one core busy, as a training would."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=die_with_parent)
    try:
        time.sleep(0.5)
        yield
    finally:
        process.kill()
        process.wait()
