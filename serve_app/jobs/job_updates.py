"""What may happen to a job: events, of the tracker and of the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class UpdateType(StrEnum):
    """What happened. The words of the training are those of ``training.jsonl``."""

    SUBMITTED = "submitted"  # a Ray Job was started for it: submission_id
    WAITING = "waiting"  # it cannot go on yet: reason
    STOPPING = "stopping"  # the tracker has its Ray Job stopped, to start another: reason
    LOST = "lost"  # its Ray Job is gone without a word: reason
    INTERRUPTED = "interrupted"  # its Ray Job is gone with the whole cluster: reason
    CANCELLED = "cancelled"  # somebody wanted it to stop: reason?
    STARTED = "started"  # total_steps, train_pairs, eval_pairs, device, resumed_step
    PROGRESS = "progress"  # step, total_steps, epoch, loss, learning_rate, tokens_per_second, seconds_left
    CHECKPOINT = "checkpoint"  # step
    METRICS = "metrics"  # when: before or after; ndcg@10, ...
    NOTE = "event"  # level, message; lasting: whether the job's last message repeats it
    PUBLISHED = "published"  # model_name, folder
    FAILED = "failed"  # reason; of the training, or of the tracker when it gives up
    DONE = "done"


_LARGEST = 2**53  # of what a JSON reader must keep exactly
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


@dataclass(frozen=True)
class JobUpdate:
    """Something that happened to a job.

    Attributes:
        type: What.
        time: Unix time in seconds.
        data: More about it. Another program wrote it: anything may be missing or of a wrong type, so it is read
            through the methods, which answer None then.
    """

    type: UpdateType
    time: float
    data: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_line(cls, line: Mapping[str, Any], *, now: float) -> JobUpdate | None:
        """A line of ``training.jsonl`` as an event; None if the training has no such word."""
        word = line.get("type")
        if not isinstance(word, str) or word not in TRAINING_UPDATES:
            return None
        time = _finite(line.get("time"))
        return cls(UpdateType(word), now if time is None else time, line)

    def text(self, name: str) -> str | None:
        """A text that is not empty."""
        value = self.data.get(name)
        return value if isinstance(value, str) and value else None

    def number(self, name: str) -> float | None:
        """A finite number: JSON has no other, and NaN must not reach a reply."""
        return _finite(self.data.get(name))

    def count(self, name: str) -> int | None:
        """A whole number from 0 on."""
        value = _finite(self.data.get(name))
        return int(value) if value is not None and value >= 0 and value == int(value) else None

    def measures(self) -> dict[str, float]:
        """Every finite number but the time, by name."""
        return {name: value for name in self.data if name != "time" and (value := self.number(name)) is not None}


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -_LARGEST <= value <= _LARGEST else None  # NaN is not between them
