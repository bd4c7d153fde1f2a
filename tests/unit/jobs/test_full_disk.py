"""Jobs on a disk without room, or one that is mounted read-only: they can be read, and deleting makes room."""

from __future__ import annotations

import asyncio
import shutil
import threading
from typing import Any

import pytest

from serve_app.domain.errors import StorageError
from serve_app.jobs.job_folders import JobFolders
from serve_app.jobs.lease import LEASE_TIMEOUT_S
from tests.unit.jobs.fake_cluster import DONE, World
from tests.unit.jobs.full_disk import fail_overwriting, fill_disk


async def ended(world: World) -> None:
    await world.running()
    world.report(DONE)
    await world.reconcile()


@pytest.mark.parametrize("copies_on_write", [False, True])
async def test_a_job_can_be_deleted_from_a_full_disk(
    world: World, monkeypatch: pytest.MonkeyPatch, copies_on_write: bool
) -> None:
    await ended(world)
    (world.root / "a" / "checkpoints").mkdir()
    fill_disk(monkeypatch)
    if copies_on_write:
        fail_overwriting(monkeypatch)
    for _ in range(5):
        await world.reconcile()
    world.now += LEASE_TIMEOUT_S / 2
    await world.jobs.delete("a")
    assert [path.name for path in world.root.iterdir() if path.is_dir()] == [".lease"]


@pytest.mark.parametrize("stops_on_purpose", [False, True], ids=["its tracker died", "it was stopped"])
async def test_a_service_that_starts_on_a_full_disk_takes_the_file_of_the_lease_before(
    world: World, monkeypatch: pytest.MonkeyPatch, stops_on_purpose: bool
) -> None:
    await ended(world)
    if stops_on_purpose:
        await world.jobs.release_lease()
    world.restart_tracker()
    fill_disk(monkeypatch)
    await world.reconcile()
    assert [path.name for path in (world.root / ".lease").iterdir()] == [f"{2:012d}"]
    await world.jobs.delete("a")
    assert await world.jobs.page(limit=9) == []


async def test_a_tracker_that_starts_without_room_for_a_lease_reads_until_there_is_room(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await ended(world)
    await world.running("c")
    world.restart_tracker()
    with monkeypatch.context() as patch:
        fill_disk(patch)
        fail_overwriting(patch)
        for _ in range(3):
            assert (await world.reconcile()).status == "completed"
        assert [record.id for record in await world.jobs.page(limit=9)] == ["c", "a"]
        assert world.cluster.live == ["c-1"], "no other service has it trained"
        for refused in (world.submit("b"), world.jobs.delete("a")):
            with pytest.raises(StorageError, match="only be read: make room on the disk"):
                await refused
        assert len([record for record in caplog.records if "make room" in record.message]) == 1
    await world.reconcile()
    await world.jobs.delete("a")


async def test_a_missing_folder_on_a_disk_without_room_is_a_storage_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch)
    world.root.write_text("a file")
    with pytest.raises(StorageError, match="cannot be used"):
        await world.jobs.keep_lease()


async def test_the_lease_is_renewed_while_a_deleted_job_is_removed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new holder's first second lasts as long as the removing; the other service listens meanwhile."""
    other = World(world.models_dir.parent, "b")
    await world.running()
    world.restart_tracker()
    is_renewed = threading.Event()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr("serve_app.jobs.leased_jobs._RENEWAL_S", 0.001)

    def remove_slowly(self: JobFolders) -> None:
        renewals = []
        while len(renewals) < LEASE_TIMEOUT_S + 3:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0.005), loop).result()
            other.now += 1
            renewals.append(other.lease.poll())
        assert set(renewals) == {None}
        is_renewed.set()

    monkeypatch.setattr(JobFolders, "remove_unfinished", remove_slowly)
    await world.reconcile()
    assert is_renewed.is_set()


async def test_the_event_loop_goes_on_while_the_checkpoints_of_a_completed_job_are_removed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.running()
    (world.root / "a" / "checkpoints").mkdir()
    world.publish("my-a", "a")
    world.cluster.kill("a-1")
    removed_on: set[threading.Thread] = set()
    remove = shutil.rmtree

    def note_thread(*args: Any, **options: Any) -> None:
        removed_on.add(threading.current_thread())
        remove(*args, **options)

    monkeypatch.setattr(shutil, "rmtree", note_thread)
    assert (await world.reconcile()).status == "completed"
    assert not (world.root / "a" / "checkpoints").exists()
    assert removed_on
    assert threading.main_thread() not in removed_on
