"""The three contenders behind one face each: start, measure, stop."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.children import BenchmarkError, Child
from benchmarks.cpu import machine_s
from benchmarks.inprocess import Engine, Task, TaskResult
from benchmarks.load import Load, LoadResult
from serve_app.launch.ports import free_port
from serve_app.models.openmp import PASSIVE

_START_S = 240.0
_ANSWER_S = 180.0


class InProcessContender:
    """sentence-transformers in a process of its own, which sleeps until it is asked."""

    def __init__(self, engine: Engine, niceness: int) -> None:
        """Starts it and waits until the model is loaded."""
        self._child = Child("inprocess", extra=PASSIVE, niceness=niceness)
        try:
            self._child.tell(json.dumps(asdict(engine)))
            self._child.line(_START_S)
        except BaseException:
            self.stop()
            raise

    def run(self, task: Task) -> TaskResult:
        """Measures one task."""
        self._child.tell(json.dumps(asdict(task)))
        return TaskResult(**json.loads(self._child.line(_ANSWER_S)))

    def stop(self) -> None:
        """Ends the process."""
        self._child.stop()


class PlainContender:
    """The plain service of ``benchmarks.plain_service``."""

    def __init__(self, folder: Path, niceness: int) -> None:
        """Starts it and waits until it answers."""
        self.port = free_port()
        self._child = Child("plain_service", "--folder", str(folder), "--port", str(self.port), niceness=niceness)
        deadline = time.monotonic() + _START_S
        try:
            while not self._answers():
                if time.monotonic() > deadline:
                    raise BenchmarkError("the plain service did not get ready")
                time.sleep(0.2)
        except BaseException:
            self.stop()
            raise

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/openapi.json", timeout=5):
                return True
        except OSError:
            return False

    def stop(self) -> None:
        """Ends the process."""
        self._child.stop()


class Clients:
    """A running load; the constructor returns when it starts to measure."""

    def __init__(self, load: Load) -> None:
        """Starts the clients."""
        self._load = load
        self._child = Child("load")
        self._child.tell(json.dumps(asdict(load)))
        self._expect("go")

    def result(self, at_end: Callable[[], None] = lambda: None) -> LoadResult:
        """Waits for the end.

        Args:
            at_end: Called at the moment the clients stop to measure.
        """
        try:
            self._expect("end")
            at_end()
            return LoadResult(**json.loads(self._child.line(_ANSWER_S)))
        finally:
            self._child.stop()

    def hang_up(self) -> None:
        """Ends the clients in the middle of their requests.

        Raises:
            BenchmarkError: They had ended before.
        """
        if not self._child.running:
            raise BenchmarkError("the clients ended too early, see above")
        self._child.stop()

    def _expect(self, word: str) -> None:
        try:
            if (line := self._child.line(self._load.seconds + _ANSWER_S)) != word:
                raise BenchmarkError(f"the clients said {line!r} instead of {word!r}")
        except BaseException:
            self._child.stop()
            raise


class Neighbours:
    """How many cores something else on the machine used, which is noise in every number."""

    def __init__(self) -> None:
        """Starts to look."""
        self._machine, self._at = machine_s(), time.monotonic()

    def cores(self, own_s: float) -> float:
        """Cores used since the start by anything but us.

        Args:
            own_s: CPU seconds of what was measured.
        """
        return max(0.0, (machine_s() - self._machine - own_s) / (time.monotonic() - self._at))
