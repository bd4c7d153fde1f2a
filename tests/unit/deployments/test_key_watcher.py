"""The file of keys: a mistake in it prevents the start, and a change is seen without a restart."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest

from serve_app.deployments.key_watcher import KeyWatcher
from serve_app.domain.errors import ConfigurationError
from serve_app.security.api_keys import sha256_of
from serve_app.settings.security_settings import KEYS_VARIABLE, SecuritySettings

OLD, NEW = "rk_old", "rk_new"


def write(file: Path, text: str) -> None:
    """Replaces the file as an editor does."""
    staged = file.with_suffix(".new")
    staged.write_text(text)
    os.replace(staged, file)


def read_again(keys: KeyWatcher) -> None:
    """Polls until a change is seen."""
    for _ in range(2):
        keys.poll()


def known(keys: KeyWatcher, secret: str) -> bool:
    return keys.ring().match([secret.encode()]) is not None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    write(file, f"me:{sha256_of(OLD)}\n")
    return file


def test_keys_of_the_file_and_of_the_environment_both_count(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, f"ops:{NEW}:admin")
    keys = KeyWatcher(SecuritySettings(api_keys_file=file))
    assert known(keys, OLD)
    assert known(keys, NEW)


def test_a_guessable_key_of_the_environment_is_warned_about_without_being_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, f"me:{OLD},you:{'x' * 16}")
    KeyWatcher(SecuritySettings())
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "'me'" in record.getMessage()
    assert OLD not in record.getMessage()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"", "no key in it"),
        (b"me:" + OLD.encode(), "line 1: the second field of 'me' must be the SHA-256 of its key"),
        (b"\xff\xfe", "is not text in UTF-8"),
    ],
)
def test_a_mistake_in_the_file_prevents_the_start(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        KeyWatcher(SecuritySettings(api_keys_file=file))
    assert message in caught.value.message
    assert str(file) in caught.value.message
    assert OLD not in caught.value.message


def test_a_name_in_both_places_prevents_the_start(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, f"me:{NEW}")
    with pytest.raises(ConfigurationError, match="two API keys have the name 'me'"):
        KeyWatcher(SecuritySettings(api_keys_file=file))


def test_a_key_is_added_and_another_one_revoked_without_a_restart(file: Path) -> None:
    keys = KeyWatcher(SecuritySettings(api_keys_file=file))
    write(file, f"you:{sha256_of(NEW)}\n")
    read_again(keys)
    assert known(keys, NEW)
    assert not known(keys, OLD)


@pytest.mark.parametrize("content", ["", "# none", "\n"])
def test_the_last_key_is_revoked_by_an_empty_file(file: Path, content: str) -> None:
    keys = KeyWatcher(SecuritySettings(api_keys_file=file))
    write(file, content)
    read_again(keys)
    assert not known(keys, OLD)
    write(file, f"you:{sha256_of(NEW)}\n")
    read_again(keys)
    assert known(keys, NEW)


@pytest.mark.parametrize("bad", [b"me:x", b"\xff\xfe", b"you", b"a:%s" % sha256_of(NEW).encode()])
def test_a_malformed_line_is_ignored_and_the_others_count(
    file: Path, bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    keys = KeyWatcher(SecuritySettings(api_keys_file=file))
    file.write_bytes(b"you:%s\n%s\n" % (sha256_of(NEW).encode(), bad))
    for _ in range(3):
        read_again(keys)
    assert known(keys, NEW)
    assert not known(keys, OLD)
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]  # once, not at every poll
    assert record.levelno == logging.ERROR
    assert "line 2: " in record.getMessage()
    assert sha256_of(NEW) not in record.getMessage()


def test_an_unreadable_file_is_read_once_it_is_readable(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> str:
        raise PermissionError("denied")

    keys = KeyWatcher(SecuritySettings(api_keys_file=file))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", denied)
        write(file, f"you:{sha256_of(NEW)}\n")
        read_again(keys)
    assert known(keys, OLD)
    time.sleep(0.02)  # some clocks of file systems tick slowly
    file.chmod(0o600)
    read_again(keys)
    assert known(keys, NEW)
    assert not known(keys, OLD)


def test_keys_of_the_environment_precede_those_of_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, f"ops:{NEW}:admin")
    keys = KeyWatcher(SecuritySettings(api_keys_file=file))
    write(file, f"ops:{sha256_of(OLD)}\n")
    read_again(keys)
    assert known(keys, NEW)
    assert not known(keys, OLD), "its name is another key's"


def test_while_the_file_is_missing_the_old_keys_stay_valid(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = KeyWatcher(SecuritySettings(api_keys_file=file))
    file.unlink()
    for _ in range(3):
        read_again(keys)
    assert known(keys, OLD)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    write(file, f"you:{sha256_of(NEW)}\n")
    read_again(keys)
    assert known(keys, NEW)
    assert not known(keys, OLD)


def test_a_file_that_is_being_written_is_not_read(file: Path) -> None:
    keys = KeyWatcher(SecuritySettings(api_keys_file=file))
    file.write_text("")  # as an editor does that truncates it first
    keys.poll()
    file.write_text(f"me:{sha256_of(OLD)}\nyou:{sha256_of(NEW)}\n")
    keys.poll()
    assert known(keys, OLD)
    assert not known(keys, NEW)
    keys.poll()
    assert known(keys, OLD)
    assert known(keys, NEW)


def test_a_file_that_did_not_change_is_not_read_again(file: Path) -> None:
    keys = KeyWatcher(SecuritySettings(api_keys_file=file))
    ring = keys.ring()
    keys.poll()
    assert keys.ring() is ring
