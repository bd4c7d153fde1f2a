"""Updates of a training: JSON lines appended to ``training.jsonl``, which the tracker reads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from serve_app.jobs.job_updates import JobUpdate, UpdateType
from training.ownership import Ownership


class Reporter:
    """Appends one line for each update, whole and at once; see ``JobUpdate`` for their form.

    A training that no longer owns its job writes nothing and is stopped at its next heartbeat: both raise
    ``OwnershipLostError``. Before a line about the end the job folder is always read, before any other at most every
    two seconds.
    """

    def __init__(
        self, path: Path | None, *, ownership: Ownership | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """Writes to a file that may exist already.

        Args:
            path: ``JobFolder.updates_file``; None writes nothing, for all workers but the first.
            ownership: Of the job; None for a training by hand.
            clock: Unix time in seconds.
        """
        self._path = path
        self._ownership = ownership
        self._clock = clock
        self._lock = threading.Lock()
        self._has_beaten = True

    @property
    def enabled(self) -> bool:
        """True if this reporter writes."""
        return self._path is not None

    def started(self, *, total_steps: int, train_pairs: int, eval_pairs: int, device: str, dtype: str, world_size: int,
                resumed_step: int) -> None:  # fmt: skip
        """Training is about to take its first step, or the first after ``resumed_step``."""
        self._write(
            UpdateType.STARTED, total_steps=total_steps, train_pairs=train_pairs, eval_pairs=eval_pairs, device=device,
            dtype=dtype, world_size=world_size, resumed_step=resumed_step,
        )  # fmt: skip

    def progress(self, *, step: int, total_steps: int, epoch: float, loss: float, learning_rate: float,
                 tokens_per_second: float, seconds_left: float) -> None:  # fmt: skip
        """Steps were taken; ``loss`` is their mean since the last line, and the epoch is counted in parts."""
        self._write(
            UpdateType.PROGRESS, step=step, total_steps=total_steps, epoch=round(epoch, 4), loss=round(loss, 6),
            learning_rate=learning_rate, tokens_per_second=round(tokens_per_second, 1),
            seconds_left=round(seconds_left, 1),
        )  # fmt: skip

    def checkpoint(self, step: int) -> None:
        """A checkpoint is complete: a later attempt resumes behind this step."""
        self._write(UpdateType.CHECKPOINT, step=step)

    def metrics(self, when: str, values: Mapping[str, float]) -> None:
        """Retrieval on the held-out queries, ``before`` or ``after`` the training."""
        self._write(UpdateType.METRICS, when=when, **values)

    def event(self, level: str, message: str) -> None:
        """An event for people; ``level`` is ``info`` or ``warning``."""
        self._write(UpdateType.EVENT, level=level, message=message)

    def lasting_warning(self, message: str) -> None:
        """A warning for users of the result; the job's last message repeats it."""
        self._write(UpdateType.EVENT, level="warning", message=message, lasting=True)

    def heartbeat(self) -> None:
        """Records that the work advances: some texts were computed, or a model was loaded. Writes nothing.

        Raises:
            OwnershipLostError: The job is no longer this training's; checked every two seconds.
        """
        self._has_beaten = True
        if self._ownership is not None:
            self._ownership.check()

    def check_ownership(self) -> None:
        """Checks at once, before an action that cannot be undone.

        Raises:
            OwnershipLostError: The job is no longer this training's.
        """
        if self._ownership is not None:
            self._ownership.check(at_once=True)

    def keep_alive(self) -> None:
        """Writes an event without a message, which clients do not see, if the work has advanced since the last call."""
        if self._has_beaten:
            self._has_beaten = False
            self._write(UpdateType.EVENT)

    def published(self, *, model_name: str, folder: Path) -> None:
        """The result can be served."""
        self.check_ownership()
        self._write(UpdateType.PUBLISHED, model_name=model_name, folder=str(folder))

    def failed(self, reason: str) -> None:
        """The job is over, without a result; ``reason`` is a sentence for the user."""
        self.check_ownership()
        self._write(UpdateType.FAILED, reason=reason)

    def done(self) -> None:
        """The job is over, with a result."""
        self.check_ownership()
        self._write(UpdateType.DONE)

    def _write(self, type_: UpdateType, **fields: object) -> None:
        if self._path is None:
            return
        if self._ownership is not None:
            self._ownership.check()  # a training that hung between two heartbeats may have lost its job meanwhile
        line = JobUpdate(type_, round(self._clock(), 3), fields).to_line()
        with self._lock, self._path.open("ab+") as file:
            if file.tell() and not _ends_with_newline(file):
                line = "\n" + line  # a process died while it wrote; its half line must not spoil this one
            file.write(line.encode("utf-8"))


def _ends_with_newline(file: BinaryIO) -> bool:
    file.seek(-1, 2)
    return file.read(1) == b"\n"
