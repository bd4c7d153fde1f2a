"""Reads API keys from a file or an environment variable, and writes their lines.

A file has one key a line, ``name:sha256[:scope[:requests_per_minute[:tokens_per_minute]]]``; empty fields keep their
default, ``#`` starts a comment. The variable has the same fields between commas, with the key instead of its hash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from serve_app.security.api_keys import ApiKey, KeyRing, Scope, sha256_of

MIN_CHARS = 16
"""Shorter keys can be guessed and are worth a warning; generated ones are longer."""

_MAX_FIELDS = 5


def keys_of_file(text: str) -> tuple[ApiKey, ...]:
    """The keys of a file.

    Raises:
        ValueError: A line is malformed, or the file has no key; the message names the line and nothing secret.
    """
    return _strict(_parse(_lines(text), hashed=True))


def keys_of_variable(text: str) -> tuple[ApiKey, ...]:
    """The keys of the environment variable.

    Raises:
        ValueError: As ``keys_of_file``.
    """
    return _strict(_parse(((f"entry {i}", entry) for i, entry in enumerate(text.split(","), 1)), hashed=False))


def valid_keys_of_file(text: str, *, beside: Iterable[ApiKey] = ()) -> tuple[KeyRing, Sequence[str]]:
    """The valid keys of a file that may have mistakes, for a running service.

    Args:
        text: Content of the file.
        beside: Keys from elsewhere, which precede those of the file.

    Returns:
        All keys, perhaps none, and one error message for each other line.
    """
    ring, errors = KeyRing(list(beside)), []
    for where, key in _parse(_lines(text), hashed=True):
        try:
            if isinstance(key, ValueError):
                raise key
            ring = KeyRing([*ring.keys, key])
        except ValueError as error:
            errors.append(f"{where}: {error}")
    return ring, errors


def line_of(key: ApiKey) -> str:
    """The key's line in a file."""
    limits = [str(limit or "") for limit in (key.requests_per_minute, key.tokens_per_minute)]
    return ":".join([key.name, key.sha256, key.scope, *limits]).rstrip(":")


def _lines(text: str) -> Iterator[tuple[str, str]]:
    return ((f"line {i}", line.partition("#")[0]) for i, line in enumerate(text.splitlines(), 1))


def _strict(parsed: Iterable[tuple[str, ApiKey | ValueError]]) -> tuple[ApiKey, ...]:
    keys = []
    for where, key in parsed:
        if isinstance(key, ValueError):
            raise ValueError(f"{where}: {key}")
        keys.append(key)
    if not keys:
        raise ValueError("there is no key in it, so no request could be allowed")
    return tuple(keys)


def _parse(entries: Iterable[tuple[str, str]], *, hashed: bool) -> Iterator[tuple[str, ApiKey | ValueError]]:
    """The place of each entry that is not blank, and its key or the error in it."""
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
        raise ValueError("there is no key after the name")
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
