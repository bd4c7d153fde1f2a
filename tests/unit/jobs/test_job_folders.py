"""Job folders: whole or not there, readable after any crash."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
from pathlib import Path

import pytest

from serve_app.domain.errors import StorageError
from serve_app.jobs import durable_files
from serve_app.jobs.job_events import JobEvent
from serve_app.jobs.job_folder_readers import (
    TrainingData,
    read_events,
    read_job,
    read_logs,
    read_loss_curve,
    read_updates,
)
from serve_app.jobs.job_folders import JobFolders
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.training_spec import TrainingSpec
from serve_app.jobs.upload_store import UploadStore
from tests.unit.jobs.job_examples import NEW, RUNNING, spec

DATA = TrainingData(b'{"query": "q", "pos": ["p"], "neg": []}\n')


@pytest.fixture
def store(tmp_path: Path) -> JobFolders:
    return JobFolders(tmp_path / "deep" / "jobs")


@pytest.fixture
def folder(store: JobFolders) -> Path:
    """The folder of a job that was created."""
    store.create(spec(), DATA, NEW)
    return store.folder("a-job").path


def jobs_in(store: JobFolders) -> list[tuple[TrainingSpec | None, JobRecord]]:
    """All jobs, by id."""
    found = [read_job(store.folder(job_id)) for job_id in sorted(store.job_ids())]
    return [(job.spec, job.record) for job in found if job is not None]


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_job_is_read_as_it_was_created(store: JobFolders, folder: Path) -> None:
    assert jobs_in(store) == [(spec(), NEW)]
    assert (folder / "pairs.jsonl").read_bytes() == DATA.pairs
    assert not (folder / "eval.jsonl").exists()
    store.write_record(RUNNING)
    assert jobs_in(JobFolders(store.root)) == [(spec(), RUNNING)]


def test_job_folders_are_closed_to_other_users_whatever_the_umask_is(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir(mode=0o755)  # as an earlier version made it
    before = os.umask(0)
    try:
        store = JobFolders(tmp_path / "jobs")
        store.create(spec(), DATA, NEW)
        UploadStore(store.root).create(io.BytesIO(b"q\tp\n"), "pairs.tsv")
        store.save_log("a-job", "ray", "text")
    finally:
        os.umask(before)
    folders = [store.root, *(path for path in store.root.rglob("*") if path.is_dir())]
    assert len(folders) == 5
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}


def test_held_out_examples_are_kept_apart(store: JobFolders) -> None:
    store.create(spec(), TrainingData(b"train\n", b"eval\n"), NEW)
    assert store.folder("a-job").held_out_file.read_bytes() == b"eval\n"


def test_a_full_disk_leaves_no_half_of_a_job_and_says_so(store: JobFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(durable_files.os, "fsync", full_disk)
        with pytest.raises(StorageError, match="is full: delete old jobs"):
            store.create(spec(), DATA, NEW)
    assert list(store.root.iterdir()) == []
    store.create(spec(), DATA, NEW)
    assert jobs_in(store) == [(spec(), NEW)]


def test_a_full_disk_leaves_the_old_record(store: JobFolders, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(durable_files.os, "fsync", full_disk)
        with pytest.raises(StorageError, match="full"):
            store.write_record(RUNNING)
    assert jobs_in(store) == [(spec(), NEW)]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be used"):
        JobFolders(tmp_path / "file" / "jobs")


@pytest.mark.parametrize("name", ["job.json", "spec.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe", b'{"id": 5}', NEW.to_json().encode()[:100]])
def test_a_job_that_cannot_be_read_is_a_failed_one_and_its_file_stays(
    store: JobFolders, folder: Path, name: str, content: bytes | None
) -> None:
    store.create(spec("b-job"), DATA, JobRecord.of_spec(spec("b-job"), created_at=1.0, accepted=1, ignored=0))
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    jobs = {record.id: record for _, record in jobs_in(store)}
    assert jobs["b-job"].status is JobStatus.PENDING
    assert jobs["a-job"].status is JobStatus.FAILED
    assert (jobs["a-job"].error or "").startswith("its folder cannot be read: ")
    assert jobs["a-job"].model_name == ("my-e5" if name == "job.json" else "unknown")
    assert ((folder / name).read_bytes() if content is not None else None) == content


def test_the_folder_of_another_job_is_not_believed(store: JobFolders, folder: Path) -> None:
    folder.rename(store.root / "copy")
    ((_, record),) = jobs_in(store)
    assert (record.id, record.status) == ("copy", JobStatus.FAILED)


def test_what_a_crash_left_behind_is_cleared_and_no_job(store: JobFolders, folder: Path) -> None:
    for rest in (".unfinished-x", ".unfinished-gone-y"):
        (store.root / rest / "logs").mkdir(parents=True)
    (store.root / "a file").write_text("not ours")
    store.remove_unfinished()
    assert len(jobs_in(store)) == 1
    assert sorted(path.name for path in store.root.iterdir()) == ["a file", "a-job"]


def test_a_deleted_job_is_gone(store: JobFolders, folder: Path) -> None:
    store.delete("a-job")
    assert list(store.root.iterdir()) == []
    with pytest.raises(StorageError):
        store.delete("a-job")


# ------------------------------------------------------------------ what the training appends


def test_the_tail_goes_on_where_it_stopped(store: JobFolders, folder: Path) -> None:
    assert read_updates(store.folder("a-job"), 0) == ([], 0)
    path = folder / "training.jsonl"
    path.write_bytes(b'{"type": "started"}\n{"type": "pro')
    lines, offset = read_updates(store.folder("a-job"), 0)
    assert (lines, offset) == ([{"type": "started"}], 20)
    assert read_updates(store.folder("a-job"), offset) == ([], offset), "half a line is left alone"
    with path.open("ab") as file:
        file.write(b'gress"}\n\n')
    lines, offset = read_updates(store.folder("a-job"), offset)
    assert (lines, offset) == ([{"type": "progress"}], path.stat().st_size)


@pytest.mark.parametrize(
    ("content", "types"),
    [
        (b'{"time": 1, "type": "prog{"time": 2, "type": "started"}\n', ["started"]),
        (b'{"time": 1, "type": "ev", "data": {"a{"time": 2, "type": "started", "d": {"x": 1}}\n', ["started"]),
        (b'rubbish\n{"type": "done"}\n', ["done"]),
        (b'[1]\n5\nnull\n"x"\n{"type": "done"}\n', ["done"]),
        (b'\xff\xfe{"a"\n{"type": "done"}\n', ["done"]),
        (b"[" * 5000 + b'\n{"type": "done"}\n', ["done"]),
    ],
)
def test_half_a_line_of_a_writer_that_was_killed_costs_no_whole_one(
    store: JobFolders, folder: Path, content: bytes, types: list[str]
) -> None:
    (folder / "training.jsonl").write_bytes(content)
    lines, offset = read_updates(store.folder("a-job"), 0)
    assert [line["type"] for line in lines] == types
    assert offset == len(content)


def test_a_long_file_is_read_in_parts_and_a_line_without_end_is_passed(
    store: JobFolders, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable_files, "_CHUNK_BYTES", 64)
    content = b'{"n": 1}\n' * 20 + b"x" * 200 + b'\n{"n": 2}\n'
    (folder / "training.jsonl").write_bytes(content)
    found, offset, calls = [], 0, 0
    while offset < len(content):
        lines, offset = read_updates(store.folder("a-job"), offset)
        found += [line["n"] for line in lines]
        calls += 1
    assert found == [1] * 20 + [2]
    assert calls > 3


# ------------------------------------------------------------------ notes and logs


def note(number: int, message: str = "x") -> JobEvent:
    return JobEvent(number, float(number), "info", message)


def test_notes_are_read_after_a_cursor(store: JobFolders, folder: Path) -> None:
    assert read_events(store.folder("a-job")) == []
    store.append_events("a-job", [note(1), note(2, "zwei \u2028 \ud83d")])
    store.append_events("a-job", [note(3)])
    assert [found.id for found in read_events(store.folder("a-job"))] == [1, 2, 3]
    assert read_events(store.folder("a-job"), after=1) == [note(2, "zwei \u2028 \ud83d"), note(3)]
    assert read_events(store.folder("a-job"), after=3) == []


def test_notes_that_were_written_again_after_a_crash_count_once(store: JobFolders, folder: Path) -> None:
    store.append_events("a-job", [note(1), note(2, "first")])
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"id": 3, "ti')  # killed while it wrote
    store.append_events("a-job", [note(2, "again"), note(3), note(4)])
    assert [found.message for found in read_events(store.folder("a-job"))[:2]] == ["x", "first"]
    assert [found.id for found in read_events(store.folder("a-job"))] == [1, 2, 3, 4]


def test_logs_are_read_by_name_and_only_their_end(store: JobFolders, folder: Path) -> None:
    store.save_log("a-job", "driver-2", "second \ud83d")
    store.save_log("a-job", "driver-1", "x" * 3_000_000)
    logs = read_logs(store.folder("a-job"))
    assert list(logs) == ["driver-1", "driver-2"]
    assert (len(logs["driver-1"]), logs["driver-2"]) == (1024 * 1024, "second ?")


def test_a_log_that_cannot_be_kept_is_no_failure(store: JobFolders) -> None:
    store.save_log("no-job", "driver-1", "text")
    assert read_logs(store.folder("no-job")) == {}


def test_the_loss_curve_is_there_once_it_is_drawn(store: JobFolders, folder: Path) -> None:
    assert read_loss_curve(store.folder("a-job")) is None
    (folder / "loss.svg").write_text("<svg/>")
    assert read_loss_curve(store.folder("a-job")) == "<svg/>"


def test_a_record_that_is_written_is_json_that_anybody_reads(store: JobFolders, folder: Path) -> None:
    assert json.loads((folder / "job.json").read_text())["status"] == "pending"
