"""The API keys of an ingress replica: read at the start, and again when their file has changed."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path

from serve_app.domain.background import BackgroundTasks
from serve_app.domain.errors import ConfigurationError
from serve_app.domain.executors import run_io
from serve_app.security.api_keys import KeyRing
from serve_app.security.key_file import MIN_CHARS, keys_of_file, valid_keys_of_file
from serve_app.settings.security_settings import KEYS_VARIABLE, SecuritySettings

logger = logging.getLogger(__name__)

_POLL_S = 2.0  # a change counts at the second poll, so within five seconds

Stamp = tuple[int, int, int, int]


class KeyWatcher:
    """The current keys."""

    def __init__(self, settings: SecuritySettings) -> None:
        """Reads the keys.

        Raises:
            ConfigurationError: The file cannot be read, a line is malformed, or two keys collide. The service must not
                start then, because without keys it would be open to every client.
        """
        self._settings = settings
        self._stamp = self._seen = _stamp(settings.api_keys_file)
        self._ring = _read(settings)
        for key in settings.environment_keys:
            if key.is_short:
                logger.warning(
                    "the API key of %r in %s has less than %d characters and may be guessed; "
                    "make a longer one with python -m serve_app.keys",
                    key.name, KEYS_VARIABLE, MIN_CHARS,
                )  # fmt: skip

    def ring(self) -> KeyRing:
        """The keys that are valid now."""
        return self._ring

    def watch(self, tasks: BackgroundTasks) -> None:
        """Starts to check the file every two seconds."""
        tasks.every("API keys", _POLL_S, partial(run_io, self.poll))

    def poll(self) -> None:
        """Reads the file again if it has changed, and not since the previous poll: it may still be being written.

        Valid lines count even if others are malformed; an empty file allows no key. While the file cannot be read the
        old keys stay valid. Every error is logged.
        """
        file = self._settings.api_keys_file
        stamp = _stamp(file)
        is_settled, self._seen = stamp == self._seen, stamp
        if file is None or not is_settled or stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            logger.error("the API keys are unchanged, because their file cannot be read: %s", error)
            return
        self._ring, errors = valid_keys_of_file(text, beside=self._settings.environment_keys)
        for message in errors:
            logger.error("API keys, %s: %s; the line is ignored", file, message)
        logger.info("API keys read again: %s", ", ".join(key.name for key in self._ring.keys) or "none remains")


def _read(settings: SecuritySettings) -> KeyRing:
    file = settings.api_keys_file
    try:
        listed = () if file is None else keys_of_file(file.read_text(encoding="utf-8"))
        return KeyRing([*listed, *settings.environment_keys])
    except OSError as error:
        raise ConfigurationError(f"the file of API keys cannot be read: {error}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"the file of API keys {file} is not text in UTF-8") from None
    except ValueError as error:
        raise ConfigurationError(f"API keys, {file or KEYS_VARIABLE}: {error}") from None


def _stamp(file: Path | None) -> Stamp | None:
    """A value that changes with the file's content or permissions; None if there is no file."""
    if file is None:
        return None
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size
