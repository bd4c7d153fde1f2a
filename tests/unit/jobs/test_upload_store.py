"""Uploaded files: whole or not there, found again by everybody, and never anywhere else on the disk."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from serve_app.domain.errors import PayloadTooLargeError, StorageError, UploadNotFoundError
from serve_app.jobs import upload_store as module
from serve_app.jobs.job_folders import JobFolders
from serve_app.jobs.upload_store import FOLDER, UploadStore

HOUR_S = 3600


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> UploadStore:
    return UploadStore(tmp_path / "jobs", clock=clock)


def stored(store: UploadStore, data: bytes = b"q\tp\n", name: str = "pairs.tsv") -> str:
    return store.create(io.BytesIO(data), name).id


def test_a_file_is_found_by_another_store_on_the_same_folder(store: UploadStore, tmp_path: Path) -> None:
    upload = store.create(io.BytesIO(b"data"), "a\u0000/../b \ud7ff.tsv")
    other = UploadStore(tmp_path / "jobs")
    assert other.get(upload.id) == upload
    assert (upload.filename, upload.bytes, upload.created_at) == ("a\u0000/../b \ud7ff.tsv", 4, 1000.0)
    with other.open(upload.id) as file:
        assert file.read() == b"data"


def test_a_source_that_was_read_before_is_kept_from_its_start(store: UploadStore) -> None:
    source = io.BytesIO(b"data")
    source.read()
    assert store.create(source, "f").bytes == 4


def test_pages_follow_the_order_of_creation(store: UploadStore, clock: Clock) -> None:
    ids = []
    for clock.now in (3.0, 1.0, 2.0):
        ids.append(stored(store))
    third, first, second = ids

    def page(limit: int, after: str | None, *, newest_first: bool) -> list[str]:
        return [upload.id for upload in store.page(limit=limit, after=after, newest_first=newest_first)]

    assert page(9, None, newest_first=False) == [first, second, third]
    assert page(2, None, newest_first=True) == [third, second]
    assert page(2, second, newest_first=True) == [first]
    assert page(2, third, newest_first=True) == [second, first]


def test_there_are_no_files_before_the_first_one(store: UploadStore, tmp_path: Path) -> None:
    assert store.page(limit=9, after=None, newest_first=True) == []
    assert not (tmp_path / "jobs").exists(), "asking makes no folders"


def test_a_deleted_file_is_gone_but_read_to_its_end_by_who_has_it_open(store: UploadStore, tmp_path: Path) -> None:
    file_id = stored(store)
    with store.open(file_id) as file:
        store.delete(file_id)
        assert file.read() == b"q\tp\n"
    assert list((tmp_path / "jobs" / FOLDER).iterdir()) == []
    for ask in (store.get, store.open, store.delete):
        with pytest.raises(UploadNotFoundError, match="no file"):
            ask(file_id)
    with pytest.raises(UploadNotFoundError):
        store.page(limit=1, after=file_id, newest_first=True)


@pytest.mark.parametrize(
    "file_id", ["", ".", "..", "../jobs", "file-", "/etc", "file-\u0000", "\ud83d", "file-" + "0" * 36]
)
def test_what_is_no_id_never_becomes_a_path(store: UploadStore, tmp_path: Path, file_id: str) -> None:
    stored(store)
    (tmp_path / "jobs" / "upload.json").write_text("{}")
    for ask in (store.get, store.open, store.delete):
        with pytest.raises(UploadNotFoundError):
            ask(file_id)


def test_a_full_disk_leaves_nothing_of_an_upload_and_says_so(
    store: UploadStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.os, "fsync", full_disk)
    with pytest.raises(StorageError, match="is full"):
        stored(store)
    assert list((tmp_path / "jobs" / FOLDER).iterdir()) == []


def test_what_a_dead_process_left_is_removed_a_day_later_and_no_sooner(
    store: UploadStore, clock: Clock, tmp_path: Path
) -> None:
    rest = tmp_path / "jobs" / FOLDER / ".unfinished-file-x"
    rest.mkdir(parents=True)
    made_at = rest.stat().st_mtime
    clock.now = made_at + 1000 * HOUR_S  # of this machine, which may be wrong
    os.utime(rest, (made_at, made_at - 23 * HOUR_S))
    stored(store)
    assert rest.exists(), "it may be an upload of another replica or service"
    clock.now = 0.0
    os.utime(rest, (made_at, made_at - 25 * HOUR_S))
    stored(store)
    assert not rest.exists()


def test_a_broken_card_hides_its_file_and_no_other(store: UploadStore, tmp_path: Path) -> None:
    broken, good = stored(store), stored(store)
    (tmp_path / "jobs" / FOLDER / broken / "upload.json").write_text("[]")
    assert [upload.id for upload in store.page(limit=9, after=None, newest_first=True)] == [good]
    with pytest.raises(UploadNotFoundError):
        store.get(broken)


def test_files_are_no_jobs(store: UploadStore, tmp_path: Path) -> None:
    stored(store)
    assert JobFolders(tmp_path / "jobs").job_ids() == []


def test_no_more_files_are_kept_than_there_is_room_for(tmp_path: Path) -> None:
    store = UploadStore(tmp_path / "jobs", max_files=2)
    first, _ = stored(store), stored(store)
    with pytest.raises(PayloadTooLargeError, match=r"2 are here, at most 2 .* delete some"):
        stored(store)
    store.delete(first)
    stored(store)


def test_no_more_bytes_are_kept_than_there_is_room_for(tmp_path: Path) -> None:
    store = UploadStore(tmp_path / "jobs", max_bytes=10)
    stored(store, b"six by")
    with pytest.raises(PayloadTooLargeError, match="no room for this file of 5 bytes"):
        stored(store, b"12345")
    stored(store, b"1234")
