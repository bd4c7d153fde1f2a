"""What a training says of itself: JSON lines appended to ``training.jsonl``, read by the tracker."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from serve_app.jobs.job_folder import JobFolder
from training.ownership import Ownership


class Reporter:
    """Appends one line for each thing that happens; whole lines, at once.

    Every line has ``time`` (unix seconds) and ``type``; the methods name the rest. A training that no longer owns its
    job writes nothing and is stopped where its work moves: both raise ``OwnershipLostError``. Before a line about the
    end the job folder is read in any case, before any other at most every two seconds.
    """

    def __init__(
        self, path: Path | None, *, ownership: Ownership | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """Writes to a file that may exist already.

        Args:
            path: ``JOB_DIR/training.jsonl``; None says nothing, for all workers but the first.
            ownership: Of the job; None for a training by hand.
            clock: Unix time in seconds.
        """
        self._path = path
        self._ownership = ownership
        self._clock = clock
        self._lock = threading.Lock()
        self._has_moved = True

    @property
    def speaks(self) -> bool:
        """Whether anything is written."""
        return self._path is not None

    def started(self, *, total_steps: int, train_pairs: int, eval_pairs: int, device: str, dtype: str, world_size: int,
                resumed_step: int) -> None:  # fmt: skip
        """Training is about to take its first step, or the first after ``resumed_step``."""
        self._write(
            "started", total_steps=total_steps, train_pairs=train_pairs, eval_pairs=eval_pairs, device=device,
            dtype=dtype, world_size=world_size, resumed_step=resumed_step,
        )  # fmt: skip

    def progress(self, *, step: int, total_steps: int, epoch: float, loss: float, learning_rate: float,
                 tokens_per_second: float, seconds_left: float) -> None:  # fmt: skip
        """Steps were taken; ``loss`` is their mean since the last line, and the epoch is counted in parts."""
        self._write(
            "progress", step=step, total_steps=total_steps, epoch=round(epoch, 4), loss=round(loss, 6),
            learning_rate=learning_rate, tokens_per_second=round(tokens_per_second, 1),
            seconds_left=round(seconds_left, 1),
        )  # fmt: skip

    def checkpoint(self, step: int) -> None:
        """A job that dies from now on goes on behind this step."""
        self._write("checkpoint", step=step)

    def metrics(self, when: str, values: Mapping[str, float]) -> None:
        """Retrieval on the held-out queries, ``before`` or ``after`` the training."""
        self._write("metrics", when=when, **values)

    def event(self, level: str, message: str) -> None:
        """Something a person wants to know; ``level`` is ``info`` or ``warning``."""
        self._write("event", level=level, message=message)

    def lasting_warning(self, message: str) -> None:
        """Something that a user of the result must know; the job's last message repeats it."""
        self._write("event", level="warning", message=message, lasting=True)

    def moves(self) -> None:
        """A piece of the work is done: some texts were computed, or a model was loaded. Says nothing by itself.

        Raises:
            OwnershipLostError: The work is not to go on; looked for every two seconds.
        """
        self._has_moved = True
        if self._ownership is not None:
            self._ownership.check()

    def check_ownership(self) -> None:
        """To be called before what cannot be undone.

        Raises:
            OwnershipLostError: The job is no longer this training's.
        """
        if self._ownership is not None:
            self._ownership.check(at_once=True)

    def alive(self) -> None:
        """Nothing has happened, but it goes on: an event without a message, which nobody is shown.

        Says so only if the work has moved since the last time.
        """
        if self._has_moved:
            self._has_moved = False
            self._write("event")

    def published(self, *, model_name: str, folder: Path) -> None:
        """The result can be served."""
        self.check_ownership()
        self._write("published", model_name=model_name, folder=str(folder))

    def failed(self, reason: str) -> None:
        """The job is over, without a result; ``reason`` is a sentence for the user."""
        self.check_ownership()
        self._write("failed", reason=reason)

    def done(self) -> None:
        """The job is over, with a result."""
        self.check_ownership()
        self._write("done")

    def _write(self, type_: str, **fields: object) -> None:
        if self._path is None:
            return
        if self._ownership is not None:
            self._ownership.check()  # a training that hung between two moves may have lost its job meanwhile
        line = json.dumps({"time": round(self._clock(), 3), "type": type_, **fields}, ensure_ascii=False) + "\n"
        with self._lock, self._path.open("ab+") as file:
            if file.tell() and not _ends_whole(file):
                line = "\n" + line  # a process died while it wrote; its half line must not spoil ours
            file.write(line.encode("utf-8"))


def _ends_whole(file: Any) -> bool:
    file.seek(-1, 2)
    return bool(file.read(1) == b"\n")


def read_lines(job_dir: Path) -> list[dict[str, Any]]:
    """What was reported so far; lines that are no JSON are left out."""
    path = JobFolder(job_dir).updates_file
    found = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found
