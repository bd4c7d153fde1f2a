"""API keys, their scopes and limits; the service knows only the SHA-256 of each key.

The hash is enough for keys that ``python -m serve_app.keys`` makes (256 random bits): slow hashes are for passwords,
which can be guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

PREFIX = "rk_"
"""Prefix of generated keys, by which scanners for leaked secrets can find them."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Scope(StrEnum):
    """Permissions of a key; ``ADMIN`` includes ``USE``."""

    USE = "use"  # vectors, reranking, the list of models
    ADMIN = "admin"  # fine-tuning, jobs, files, deleting models


@dataclass(frozen=True)
class ApiKey:
    """A key as the service knows it.

    Attributes:
        name: Unique name, for logs and limits.
        sha256: Hash of the key in UTF-8, 64 lower-case hex digits.
        scope: Permissions.
        requests_per_minute: Limit; None for no limit.
        tokens_per_minute: Limit of the tokens that are encoded for it; None for no limit. A request with more tokens is
            refused after it was tokenised, and costs a minute's worth. A request that is answered 429 costs no tokens.
        is_short: Whether the key itself was seen and is short enough to be guessed.

    Raises:
        ValueError: A field is invalid. The message never contains the key or its hash.
    """

    name: str
    sha256: str = field(repr=False)
    scope: Scope = Scope.USE
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    is_short: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError("a key's name has up to 64 letters, digits, '.', '_' and '-', the first a letter or digit")
        if self.name.startswith(PREFIX) or _SHA256.fullmatch(self.name):
            raise ValueError("the name comes first, then the key")
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(
                f"the second field of {self.name!r} must be the SHA-256 of its key, 64 lower-case hex digits; "
                f"python -m serve_app.keys {self.name} makes a key and the line for it"
            )
        if any(limit is not None and limit < 1 for limit in (self.requests_per_minute, self.tokens_per_minute)):
            raise ValueError(f"a limit of {self.name!r} is below 1; leave it out for none")

    @property
    def is_limited(self) -> bool:
        """Whether it has a limit."""
        return self.requests_per_minute is not None or self.tokens_per_minute is not None

    def may(self, needed: Scope) -> bool:
        """Whether its scope includes another."""
        return self.scope is Scope.ADMIN or self.scope is needed


@dataclass(frozen=True)
class KeyRing:
    """All keys of a service.

    Raises:
        ValueError: Two keys have the same name or the same hash.
    """

    keys: Sequence[ApiKey]

    def __post_init__(self) -> None:
        names, by_hash = set[str](), dict[str, str]()
        for key in self.keys:
            if key.name in names:
                raise ValueError(f"two API keys have the name {key.name!r}; limits and logs could not distinguish them")
            if (other := by_hash.get(key.sha256)) is not None:
                same = f"{other!r} and {key.name!r} are the same API key"
                raise ValueError(f"{same}; make another with python -m serve_app.keys NAME")
            names.add(key.name)
            by_hash[key.sha256] = key.name

    def match(self, presented: Iterable[bytes]) -> ApiKey | None:
        """The key that one of the presented secrets is, or None.

        All hashes are always compared, each in constant time, so that the duration reveals nothing.
        """
        found = None
        for secret in presented:
            digest = hashlib.sha256(secret).hexdigest()
            for key in self.keys:
                if hmac.compare_digest(key.sha256, digest):
                    found = key
        return found


def sha256_of(secret: str) -> str:
    """The hash by which a file of keys names a key."""
    return hashlib.sha256(secret.encode()).hexdigest()
