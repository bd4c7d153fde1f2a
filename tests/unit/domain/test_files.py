"""Files that are replaced whole and read by their user alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from serve_app.domain.files import make_private_folder, remove, replace_file


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_replaced_with_the_mode_asked_for_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_bytes(b"old")
    for mode in (0o600, 0o640):
        replace_file(file, b"new", mode=mode)
        assert (file.read_bytes(), mode_of(file)) == (b"new", mode)
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_bytes(b"mine")
    link.symlink_to(victim)
    replace_file(link, b"new")
    assert (victim.read_bytes(), link.read_bytes(), link.is_symlink()) == (b"mine", b"new", False)


def test_a_failed_replacement_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "job.json"
    file.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(file, b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("job.json", b"old")]


def test_links_are_removed_and_never_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    doomed = tmp_path / "doomed"
    doomed.mkdir()
    for link in (doomed / "inside", tmp_path / "link"):
        link.symlink_to(kept)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("doomed", "link", "dangling", "absent"):
        remove(tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "kept"]


@pytest.mark.parametrize(
    ("before", "after"), [(None, 0o700), (0o755, 0o700), (0o4755, 0o4700), (0o2770, 0o2770), (0o1777, 0o1777)]
)
def test_a_private_folder_is_closed_to_others_unless_it_is_shared_on_purpose(
    tmp_path: Path, before: int | None, after: int
) -> None:
    folder = tmp_path / "jobs"
    if before is not None:
        folder.mkdir()
        folder.chmod(before)
    make_private_folder(folder)
    assert mode_of(folder) == after
