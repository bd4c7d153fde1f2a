"""Updates of a job: the vocabulary that the tracker and the training write and the state machine reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class UpdateType(StrEnum):
    """Types of updates, and the fields of each. Those of the training are the types of lines in ``training.jsonl``."""

    SUBMITTED = "submitted"  # a Ray Job was started for it: submission_id
    WAITING = "waiting"  # it waits for something, or no longer does: reason?
    STOPPING = "stopping"  # the tracker stops its Ray Job, to start another: reason
    LOST = "lost"  # its Ray Job ended without an update about the end: reason
    INTERRUPTED = "interrupted"  # its Ray Job ended with the whole cluster: reason
    CANCELLED = "cancelled"  # by a client, or from outside: reason?
    STARTED = "started"  # total_steps, train_pairs, eval_pairs, device, resumed_step
    PROGRESS = "progress"  # step, total_steps, epoch, loss, learning_rate, tokens_per_second, seconds_left
    CHECKPOINT = "checkpoint"  # step
    METRICS = "metrics"  # when: before or after; ndcg@10, ...
    EVENT = "event"  # level, message; lasting: whether the job's last message repeats it; nothing: a heartbeat
    PUBLISHED = "published"  # model_name, folder
    FAILED = "failed"  # reason; by the training, or by the tracker after too many lost attempts
    DONE = "done"


TRACKER_UPDATES = frozenset(
    {
        UpdateType.SUBMITTED,
        UpdateType.WAITING,
        UpdateType.STOPPING,
        UpdateType.LOST,
        UpdateType.INTERRUPTED,
        UpdateType.CANCELLED,
    }
)
TRAINING_UPDATES = frozenset(UpdateType) - TRACKER_UPDATES
_LARGEST = 2**53  # JSON readers represent larger numbers inexactly


@dataclass(frozen=True)
class JobUpdate:
    """One update of a job.

    Attributes:
        type: Its type.
        time: Unix time in seconds.
        data: Its fields. Another program may have written them, so any may be missing or of a wrong type: the methods
            return None then.
    """

    type: UpdateType
    time: float
    data: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_line(cls, line: Mapping[str, Any], *, now: float) -> JobUpdate | None:
        """The update in a line of ``training.jsonl``; None if its type is unknown or not the training's.

        Args:
            line: The parsed line.
            now: Unix time in seconds, for a line without a time.
        """
        word = line.get("type")
        if not isinstance(word, str) or word not in TRAINING_UPDATES:
            return None
        time = _finite(line.get("time"))
        return cls(UpdateType(word), now if time is None else time, line)

    def to_line(self) -> str:
        """The line of ``training.jsonl``, with its end."""
        return json.dumps({"time": self.time, "type": self.type, **self.data}, ensure_ascii=False) + "\n"

    def text(self, name: str) -> str | None:
        """A field that is a non-empty text."""
        value = self.data.get(name)
        return value if isinstance(value, str) and value else None

    def number(self, name: str) -> float | None:
        """A field that is a finite number: JSON has no other, and NaN must not reach a reply."""
        return _finite(self.data.get(name))

    def count(self, name: str) -> int | None:
        """A field that is a whole number from 0 on."""
        value = _finite(self.data.get(name))
        return int(value) if value is not None and value >= 0 and value == int(value) else None

    def measures(self) -> dict[str, float]:
        """All finite numbers but the time, by name."""
        return {name: value for name in self.data if name != "time" and (value := self.number(name)) is not None}


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -_LARGEST <= value <= _LARGEST else None  # NaN is not between them
