"""Limits of requests and tokens per minute, as token buckets; pure functions of the time.

A bucket holds a minute's worth and fills evenly, so a client may send a minute's worth at once and then as much as
flows in. The exact tokens of a request are known only when its texts have been tokenised, so they are taken in three
steps: ``admit`` reserves an estimate, ``charge`` raises the reservation to the exact number before anything is
computed, ``settle`` gives back what was not used. A reservation is raised only while the requests of the key together,
without this one, have left at least one token. So requests that run in parallel spend at most what the bucket holds
and one request more; the next requests wait until that debt is paid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from serve_app.security.api_keys import ApiKey

_MINUTE_S = 60.0
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Admission:
    """The decision about one request.

    Attributes:
        wait_s: 0.0 if it is admitted, else the seconds until it can be.
        reserved: Tokens reserved for it: its estimate, or fewer if the bucket holds fewer.
    """

    wait_s: float
    reserved: int = 0


@dataclass(frozen=True)
class Bucket:
    """The rest of a limit.

    Attributes:
        per_minute: Capacity, and refill in one minute.
        level: The rest at ``time``; below zero is debt.
        time: Seconds on a monotonic clock.
    """

    per_minute: int
    level: float
    time: float

    @classmethod
    def full(cls, per_minute: int, now: float) -> Bucket:
        """A full bucket."""
        return cls(per_minute, float(per_minute), now)

    def at(self, now: float) -> Bucket:
        """The bucket as it is at a later time; a time before its own changes nothing."""
        passed_s = max(0.0, now - self.time)
        level = min(float(self.per_minute), self.level + passed_s * self.per_minute / _MINUTE_S)
        return replace(self, level=level, time=self.time + passed_s)

    def minus(self, amount: float) -> Bucket:
        """The bucket without ``amount``, in debt if it holds less; a negative amount is given back."""
        return replace(self, level=min(float(self.per_minute), self.level - amount))

    def wait_s(self) -> float:
        """Seconds until it holds at least one; 0 if it does."""
        missing = 1.0 - self.level
        return missing * _MINUTE_S / self.per_minute if missing > _ROUNDING else 0.0


class Rates:
    """The buckets of all keys with limits. Not thread-safe."""

    def __init__(self) -> None:
        self._requests: dict[str, Bucket] = {}
        self._tokens: dict[str, Bucket] = {}

    def admit(self, key: ApiKey, now: float, *, estimate: int = 0) -> Admission:
        """Counts a request and reserves its tokens, or gives the seconds to wait; then nothing is counted.

        Args:
            key: Key of the request.
            now: Seconds on the clock of all calls.
            estimate: Probable tokens of the request.
        """
        requests = _current(self._requests, key.name, key.requests_per_minute, now)
        tokens = _current(self._tokens, key.name, key.tokens_per_minute, now)
        wait_s = max((bucket.wait_s() for bucket in (requests, tokens) if bucket is not None), default=0.0)
        if wait_s:
            return Admission(wait_s)
        if requests is not None:
            self._requests[key.name] = requests.minus(1)
        reserved = 0 if tokens is None else min(estimate, int(tokens.level + _ROUNDING))
        if tokens is not None:
            self._tokens[key.name] = tokens.minus(reserved)
        return Admission(0.0, reserved)

    def charge(self, key: ApiKey, extra: int, now: float, *, reserved: int) -> float:
        """Raises the reservation of an admitted request, or gives the seconds to wait; then nothing is taken.

        Args:
            key: Key of the request.
            extra: Tokens to take beside the reserved ones, on credit where there are fewer.
            now: Seconds on the clock of all calls.
            reserved: Tokens that the request has taken so far.

        Returns:
            0.0 if they were taken; they are not if other requests have left no token.
        """
        bucket = _current(self._tokens, key.name, key.tokens_per_minute, now)
        if bucket is None:
            return 0.0
        wait_s = bucket.minus(-reserved).wait_s()
        if not wait_s:
            self._tokens[key.name] = bucket.minus(extra)
        return wait_s

    def settle(self, key: ApiKey, used: int, now: float, *, reserved: int) -> None:
        """Ends an admitted request: returns the tokens that it reserved and did not use."""
        bucket = _current(self._tokens, key.name, key.tokens_per_minute, now)
        if bucket is not None:
            self._tokens[key.name] = bucket.minus(used - reserved)


def _current(buckets: dict[str, Bucket], name: str, per_minute: int | None, now: float) -> Bucket | None:
    """The current bucket, a full one for a new limit; None without a limit."""
    if per_minute is None:
        return None
    bucket = buckets.get(name)
    if bucket is None or bucket.per_minute != per_minute:
        return Bucket.full(per_minute, now)
    return bucket.at(now)
