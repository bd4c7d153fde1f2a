"""``python -m serve_app.keys NAME``: makes an API key, shows it once, writes the line by which the service knows it."""

from __future__ import annotations

import argparse
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from serve_app.domain.files import PRIVATE_FILE, replace_file
from serve_app.security.api_keys import PREFIX, ApiKey, KeyRing, Scope, keys_of_file, sha256_of

_RANDOM_BYTES = 32


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes a key, prints it, and prints its line or appends that to a file."""
    parser = argparse.ArgumentParser(prog="python -m serve_app.keys", description="Makes an API key.")
    parser.add_argument("name", help="whose key it is, for logs and limits")
    parser.add_argument("--admin", action="store_true", help="may fine-tune, see jobs and files, delete models, too")
    parser.add_argument("--requests-per-minute", type=int, metavar="N", help="429 beyond")
    parser.add_argument("--tokens-per-minute", type=int, metavar="N", help="likewise")
    parser.add_argument("--file", type=Path, help="append the line to this file instead of printing it")
    asked = parser.parse_args(arguments)
    secret = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    try:
        scope = Scope.ADMIN if asked.admin else Scope.USE
        key = ApiKey(asked.name, sha256_of(secret), scope, asked.requests_per_minute, asked.tokens_per_minute)
        if asked.file is not None:
            append(key, asked.file)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"key   {secret}   (shown this once; send it as the header 'Authorization: Bearer KEY')")
    print(f"added to {asked.file}" if asked.file is not None else f"line  {line_of(key)}")


def line_of(key: ApiKey) -> str:
    """The key's line in a file."""
    limits = [str(limit or "") for limit in (key.requests_per_minute, key.tokens_per_minute)]
    return ":".join([key.name, key.sha256, key.scope, *limits]).rstrip(":")


def append(key: ApiKey, file: Path) -> None:
    """Adds the key's line; the file appears at once or not at all, since a running service may be reading it.

    Args:
        key: The new key.
        file: If it is a link, the file that the link leads to is replaced, and the link stays.

    Raises:
        ValueError: The file holds something else than keys, or one of this name.
        OSError: It cannot be read or written.
    """
    file = Path(os.path.realpath(file))
    if file.is_symlink():
        raise OSError(f"{file} is a link that leads back to itself; name a file")
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    known = keys_of_file(before) if before.strip() else ()
    KeyRing([*known, key])
    mode = file.stat().st_mode & 0o777 if before else PRIVATE_FILE
    text = before + ("\n" if before and not before.endswith("\n") else "") + line_of(key) + "\n"
    replace_file(file, text.encode(), mode=mode)


if __name__ == "__main__":
    main()
