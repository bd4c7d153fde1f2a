"""The API keys of an ingress replica: read at start, read again when their file has changed."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path

from serve_app.domain.background import BackgroundTasks
from serve_app.domain.errors import ConfigurationError
from serve_app.domain.executors import run_io
from serve_app.security.api_keys import MIN_CHARS, KeyRing, keys_of_file, sound_keys_of_file
from serve_app.settings.security_settings import KEYS_VARIABLE, SecuritySettings

logger = logging.getLogger(__name__)

_LOOK_S = 2.0  # a change counts at the second look, so within five seconds

Stamp = tuple[int, int, int, int]


class KeyWatcher:
    """All keys, as they are now."""

    def __init__(self, settings: SecuritySettings) -> None:
        """Reads them.

        Raises:
            ConfigurationError: The file can not be read, a line is none, or two keys are mixed up. Nothing is
                served then: without keys it would be open to everybody.
        """
        self._settings = settings
        self._stamp = self._seen = _stamp(settings.api_keys_file)
        self._ring = _read(settings)
        for key in settings.environment_keys:
            if key.is_short:
                logger.warning(
                    "the API key of %r in %s has less than %d characters and may be guessed; "
                    "python -m serve_app.keys makes one that can not",
                    key.name, KEYS_VARIABLE, MIN_CHARS,
                )  # fmt: skip

    def ring(self) -> KeyRing:
        """The keys that are good at the moment."""
        return self._ring

    def watch(self, tasks: BackgroundTasks) -> None:
        """Has the file looked at every two seconds."""
        tasks.every("API keys", _LOOK_S, partial(run_io, self.look))

    def look(self) -> None:
        """Reads the file again if it is another one since the look before: nobody may still be writing it.

        From then on a key is good if its line is, whatever is wrong with others; an empty file is good for nobody. If
        there is no file that can be read the old keys stay good. The log tells of all that is wrong.
        """
        file = self._settings.api_keys_file
        stamp = _stamp(file)
        is_settled, self._seen = stamp == self._seen, stamp
        if file is None or not is_settled or stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            text = file.read_text(encoding="utf-8", errors="replace")  # a line that is no text is no key
        except OSError as error:
            logger.error("the API keys stay as they were, their file can not be read: %s", error)
            return
        self._ring, complaints = sound_keys_of_file(text, beside=self._settings.environment_keys)
        for complaint in complaints:
            logger.error("API keys, %s: %s; this line counts for nobody", file, complaint)
        logger.info("API keys read again: %s", ", ".join(key.name for key in self._ring.keys) or "none is left")


def _read(settings: SecuritySettings) -> KeyRing:
    file = settings.api_keys_file
    try:
        listed = () if file is None else keys_of_file(file.read_text(encoding="utf-8"))
        return KeyRing([*listed, *settings.environment_keys])
    except OSError as error:
        raise ConfigurationError(f"the file of API keys can not be read: {error}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"the file of API keys {file} is no text in UTF-8") from None
    except ValueError as error:
        raise ConfigurationError(f"API keys, {file or KEYS_VARIABLE}: {error}") from None


def _stamp(file: Path | None) -> Stamp | None:
    """What changes when a file does, or who may read it; None if it is not there."""
    if file is None:
        return None
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size
