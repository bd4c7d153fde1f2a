"""Requests and tokens a minute, counted in token buckets. Pure: the time is an argument.

A bucket holds a minute's worth and fills evenly, so a client may send a minute's worth at once and then as much as
flows in. What a request costs in tokens is known only when its texts have been read; so a request is let in
while there is anything left, and what it costs is taken afterwards, if need be on credit: the next ones wait until the
debt is paid. So the average never exceeds the limit, however large a single request is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from serve_app.domain.keys import ApiKey

_MINUTE_S = 60.0
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Bucket:
    """What is left of a limit.

    Attributes:
        per_minute: Its capacity, and what flows in in a minute.
        level: What was left at ``time``; below zero is debt.
        time: Seconds on a clock that never goes back.
    """

    per_minute: int
    level: float
    time: float

    @classmethod
    def full(cls, per_minute: int, now: float) -> Bucket:
        """A bucket with a minute's worth."""
        return cls(per_minute, float(per_minute), now)

    def at(self, now: float) -> Bucket:
        """The bucket as it is at a later time; a time before its own changes nothing."""
        passed_s = max(0.0, now - self.time)
        level = min(float(self.per_minute), self.level + passed_s * self.per_minute / _MINUTE_S)
        return replace(self, level=level, time=self.time + passed_s)

    def minus(self, amount: float) -> Bucket:
        """The bucket after ``amount`` was taken, on credit if there is less."""
        return replace(self, level=self.level - amount)

    def wait_s(self) -> float:
        """Seconds until there is one again; 0 if there is."""
        missing = 1.0 - self.level
        return missing * _MINUTE_S / self.per_minute if missing > _ROUNDING else 0.0


class Rates:
    """The buckets of all keys that have limits. Not for several threads at once."""

    def __init__(self) -> None:
        self._requests: dict[str, Bucket] = {}
        self._tokens: dict[str, Bucket] = {}

    def admit(self, key: ApiKey, now: float) -> float:
        """Lets a request in and counts it, or says how many seconds to wait; then nothing is counted.

        Returns:
            0.0 if it is let in.
        """
        requests = _current(self._requests, key.name, key.requests_per_minute, now)
        tokens = _current(self._tokens, key.name, key.tokens_per_minute, now)
        wait_s = max((bucket.wait_s() for bucket in (requests, tokens) if bucket is not None), default=0.0)
        if requests is not None and not wait_s:
            self._requests[key.name] = requests.minus(1)
        return wait_s

    def spend(self, key: ApiKey, tokens: int, now: float) -> None:
        """Takes what a request that was let in has cost."""
        bucket = _current(self._tokens, key.name, key.tokens_per_minute, now)
        if bucket is not None:
            self._tokens[key.name] = bucket.minus(tokens)


def _current(buckets: dict[str, Bucket], name: str, per_minute: int | None, now: float) -> Bucket | None:
    """The bucket as it is now, a full one for a limit that is new; None without a limit."""
    if per_minute is None:
        return None
    bucket = buckets.get(name)
    if bucket is None or bucket.per_minute != per_minute:
        return Bucket.full(per_minute, now)
    return bucket.at(now)
