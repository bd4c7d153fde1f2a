"""``python -m serve_app.keys NAME``: makes an API key, prints it once, and writes its line for the key file."""

from __future__ import annotations

import argparse
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from serve_app.domain.files import PRIVATE_FILE, replace_file
from serve_app.security.api_keys import PREFIX, ApiKey, KeyRing, Scope, sha256_of
from serve_app.security.key_file import keys_of_file, line_of

_RANDOM_BYTES = 32


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes a key, prints it, and prints its line or appends that to a file."""
    parser = argparse.ArgumentParser(prog="python -m serve_app.keys", description="Makes an API key.")
    parser.add_argument("name", help="name of the key, for logs and limits")
    parser.add_argument("--admin", action="store_true", help="also allows fine-tuning, jobs, files and deleting models")
    parser.add_argument("--requests-per-minute", type=int, metavar="N", help="limit; further requests are answered 429")
    parser.add_argument("--tokens-per-minute", type=int, metavar="N", help="limit of tokens")
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


def append(key: ApiKey, file: Path) -> None:
    """Adds the key's line to a file, which is replaced atomically because a running service may be reading it.

    Args:
        key: The new key.
        file: If it is a link, the target of the link is replaced, and the link stays.

    Raises:
        ValueError: The file has a line that is not a key, or a key of this name.
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
