"""API keys: who may ask for what, and how a key is recognised without being kept.

Only the SHA-256 of a key is kept. That is enough for keys that ``python -m serve_app.keys`` makes (256 random bits):
slow hashes are for passwords, which can be guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

PREFIX = "rk_"
"""Of the keys that we make, so that scanners for leaked secrets can find them."""

MIN_CHARS = 16
"""Shorter keys, which somebody thought up, are worth a warning."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_FIELDS = 5


class Scope(StrEnum):
    """What a key may do; ``ADMIN`` includes ``USE``."""

    USE = "use"  # vectors, reranking, the list of models
    ADMIN = "admin"  # fine-tuning, jobs, files, deleting models


@dataclass(frozen=True)
class ApiKey:
    """A key as the service knows it.

    Attributes:
        name: For logs and limits; distinct.
        sha256: Of the key in UTF-8, 64 lower-case hex digits.
        scope: What it may do.
        requests_per_minute: None for as many as one likes.
        tokens_per_minute: Of texts that are encoded for it; likewise. No request may have more; one that has is refused
            after it was tokenised, and costs a minute's worth. A request that gets 429 costs no tokens.
        is_short: Whether the key itself was seen and looked guessable.

    Raises:
        ValueError: A field makes no sense. The message never holds the key or its hash.
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
                f"what stands for the key of {self.name!r} must be its SHA-256, 64 lower-case hex digits; "
                f"python -m serve_app.keys {self.name} makes a key and the line for it"
            )
        if any(limit is not None and limit < 1 for limit in (self.requests_per_minute, self.tokens_per_minute)):
            raise ValueError(f"a limit of {self.name!r} is below 1; leave it out for none")

    @property
    def is_limited(self) -> bool:
        """Whether anything of it has to be counted."""
        return self.requests_per_minute is not None or self.tokens_per_minute is not None

    def may(self, needed: Scope) -> bool:
        """Whether its scope includes another."""
        return self.scope is Scope.ADMIN or self.scope is needed


@dataclass(frozen=True)
class KeyRing:
    """All keys of a service.

    Raises:
        ValueError: Two have one name, or are one key.
    """

    keys: Sequence[ApiKey]

    def __post_init__(self) -> None:
        if (name := _first_twin(key.name for key in self.keys)) is not None:
            raise ValueError(f"two API keys have the name {name!r}; limits and logs would mix them up")
        if (sha256 := _first_twin(key.sha256 for key in self.keys)) is not None:
            names = " and ".join(repr(key.name) for key in self.keys if key.sha256 == sha256)
            raise ValueError(f"{names} are the same API key; make another with python -m serve_app.keys NAME")

    def match(self, presented: Iterable[bytes]) -> ApiKey | None:
        """The key that one of these is; None if none is one.

        Hashes are compared in constant time, and always all of them, so that the time tells nothing.
        """
        found = None
        for secret in presented:
            digest = hashlib.sha256(secret).hexdigest()
            for key in self.keys:
                if hmac.compare_digest(key.sha256, digest):
                    found = key
        return found


def sha256_of(secret: str) -> str:
    """What a file of keys holds instead of a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


def keys_of_file(text: str) -> tuple[ApiKey, ...]:
    """The keys of a file: one a line, ``name:sha256[:scope[:requests_per_minute[:tokens_per_minute]]]``.

    Empty fields are left at their default, ``#`` starts a comment, blank lines are nothing.

    Raises:
        ValueError: A line is none, or there is no key; the message names the line and nothing secret.
    """
    return tuple(_validated(_keys(_lines(text))))


def sound_keys_of_file(text: str, *, beside: Iterable[ApiKey] = ()) -> tuple[KeyRing, Sequence[str]]:
    """The keys of a file of which the rest may be wrong, for a service that is running: whoever is not there is out.

    Args:
        text: As for ``keys_of_file``.
        beside: Keys that are known from elsewhere; they go before those of the file.

    Returns:
        Those keys and every sound one of the file, perhaps none; what is wrong with each other line.
    """
    found, complaints = list(beside), []
    names, hashes = {key.name for key in found}, {key.sha256 for key in found}
    for where, key in _keys(_lines(text)):
        if isinstance(key, ValueError):
            complaints.append(f"{where}: {key}")
        elif key.name in names or key.sha256 in hashes:
            complaints.append(f"{where}: another API key has the name {key.name!r}, or is the same key")
        else:
            names.add(key.name)
            hashes.add(key.sha256)
            found.append(key)
    return KeyRing(found), complaints


def keys_of_variable(text: str) -> tuple[ApiKey, ...]:
    """The keys of an environment variable: as in a file, but between commas, with the key instead of its hash.

    Raises:
        ValueError: As for a file.
    """
    entries = ((f"entry {i}", entry) for i, entry in enumerate(text.split(","), 1))
    return tuple(_validated(_keys(entries, hashed=False)))


def _lines(text: str) -> Iterator[tuple[str, str]]:
    return ((f"line {i}", line.partition("#")[0]) for i, line in enumerate(text.splitlines(), 1))


def _validated(keys: Iterable[tuple[str, ApiKey | ValueError]]) -> Iterator[ApiKey]:
    empty = True
    for where, key in keys:
        empty = False
        if isinstance(key, ValueError):
            raise ValueError(f"{where}: {key}")
        yield key
    if empty:
        raise ValueError("there is no key in it; nobody could use the service")


def _keys(entries: Iterable[tuple[str, str]], *, hashed: bool = True) -> Iterator[tuple[str, ApiKey | ValueError]]:
    """Where each key stands, and the key or what is wrong with it."""
    for where, entry in entries:
        if entry.strip():
            try:
                yield where, _key([part.strip() for part in entry.split(":")], hashed=hashed)
            except ValueError as error:
                yield where, error


def _key(parts: Sequence[str], *, hashed: bool) -> ApiKey:
    if not 2 <= len(parts) <= _MAX_FIELDS:
        kind = "sha256" if hashed else "key"
        raise ValueError(f"write name:{kind}[:scope[:requests_per_minute[:tokens_per_minute]]]")
    name, secret, scope, requests, tokens = [*parts, *[""] * (_MAX_FIELDS - len(parts))]
    if not secret:
        raise ValueError("there is no key behind the name")
    if scope not in {"", *Scope}:
        raise ValueError(f"the third field must be one of: {', '.join(Scope)}")
    return ApiKey(
        name,
        secret.lower() if hashed else sha256_of(secret),
        Scope(scope or Scope.USE),
        _limit(requests, "fourth"),
        _limit(tokens, "fifth"),
        is_short=not hashed and len(secret) < MIN_CHARS,
    )


def _limit(text: str, which: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"the {which} field must be a whole number a minute, or empty")
    return int(text)


def _first_twin(values: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
