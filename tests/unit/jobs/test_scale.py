"""Thousands of ended jobs cost a start, a look and a page nothing but their names: what is opened is counted."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from serve_app.domain.errors import JobNotFoundError
from serve_app.jobs.ended_index import FILE_NAME
from serve_app.jobs.job_folders import JobFolders
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.job_repository import KEEP_LEFTOVERS_S
from serve_app.jobs.lease_file import LEASE_FOLDER
from tests.unit.jobs.fake_cluster import DATA, DONE, STARTED, World
from tests.unit.jobs.job_examples import spec

COUNT = 60
Opened = list[str]
Counting = Callable[[], AbstractContextManager[Opened]]


def name(number: int) -> str:
    return f"old-{number:04d}"


@pytest.fixture
def old(world: World) -> World:
    """A service with ended jobs that has been started once since."""
    for number in range(COUNT):
        wanted = spec(name(number), f"model-{number}", str(world.models_dir))
        record = JobRecord.of_spec(wanted, created_at=float(number), accepted=1, ignored=0)
        ended = replace(record, status=JobStatus.FAILED, ended_at=float(number))
        JobFolders(world.root).create(wanted, DATA, ended)
    return world


@pytest.fixture
def opened(world: World, monkeypatch: pytest.MonkeyPatch) -> Counting:
    """Files of the jobs folder that are opened, the lease aside."""
    really_open = io.open

    @contextmanager
    def counting() -> Iterator[Opened]:
        found: Opened = []

        def counted(file: object, *args: object, **more: object) -> object:
            if isinstance(file, Path) and file.is_relative_to(world.root) and LEASE_FOLDER not in file.parts:
                found.append(str(file.relative_to(world.root)))
            return really_open(file, *args, **more)  # type: ignore[call-overload]

        with monkeypatch.context() as patch:
            patch.setattr(io, "open", counted)
            yield found

    return counting


async def test_the_first_start_reads_every_job_and_the_next_ones_only_those_that_may_have_changed(
    old: World, opened: Counting
) -> None:
    with opened() as files:
        await old.submit("live")
    assert {f"{name(number)}/job.json" for number in range(COUNT)} <= set(files)
    old.restart_tracker()
    with opened() as files:
        await old.jobs.keep_lease()
    assert set(files) == {FILE_NAME, "live/job.json", "live/spec.json"}


async def test_the_job_folders_are_read_beside_the_event_loop(old: World, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    job_ids = JobFolders.job_ids

    def listed(store: JobFolders) -> list[str]:
        threads.append(threading.current_thread())
        return job_ids(store)

    monkeypatch.setattr(JobFolders, "job_ids", listed)
    await old.jobs.keep_lease()
    assert threads
    assert threading.main_thread() not in threads


async def test_a_start_that_takes_long_keeps_its_lease(old: World, monkeypatch: pytest.MonkeyPatch) -> None:
    is_renewed, job_ids, poll = threading.Event(), JobFolders.job_ids, old.lease.poll
    polls = []

    def counted() -> int | None:
        polls.append(poll())
        if len(polls) == 5:
            is_renewed.set()
        return polls[-1]

    monkeypatch.setattr("serve_app.jobs.leased_jobs._RENEWAL_S", 0.001)
    monkeypatch.setattr(old.lease, "poll", counted)
    monkeypatch.setattr(JobFolders, "job_ids", lambda store: is_renewed.wait(30) and job_ids(store))
    await old.jobs.keep_lease()
    assert len(await old.jobs.page(limit=100)) == COUNT
    assert set(polls) == {1}


async def test_a_look_opens_nothing_of_ended_jobs(old: World, opened: Counting) -> None:
    old.now = KEEP_LEFTOVERS_S - 100
    await old.running()
    with opened() as files:
        await old.jobs.reconcile()
    assert set(files) == {"a/training.jsonl"}
    old.report(DONE)
    await old.reconcile()
    with opened() as files:
        await old.jobs.reconcile()
    assert files == []


async def test_a_page_opens_the_jobs_on_it_once(old: World, opened: Counting) -> None:
    await old.jobs.keep_lease()
    for after, first in ((None, COUNT - 1), (name(COUNT - 20), COUNT - 21)):
        wanted = [name(number) for number in range(first, first - 20, -1)]
        with opened() as files:
            assert [record.id for record in await old.jobs.page(limit=20, after=after)] == wanted
        assert {Path(file).parent.name for file in files} <= set(wanted)
        assert len(files) == 2 * 20
        with opened() as files:
            assert len(await old.jobs.page(limit=20, after=after)) == 20
            assert set(await old.jobs.specs(wanted)) == set(wanted)
        assert files == []
    assert [record.id for record in await old.jobs.page(limit=20, after=name(1))] == [name(0)]
    assert await old.jobs.page(limit=20, after=name(0)) == []


async def test_a_job_that_ends_is_listed_deleted_and_forgotten_like_any_other(old: World) -> None:
    await old.running()
    old.report(DONE)
    ended = await old.reconcile()
    old.restart_tracker()
    assert await old.jobs.get("a") == ended
    assert [record.id for record in await old.jobs.page(limit=2)] == ["a", name(COUNT - 1)]
    await old.jobs.delete(name(COUNT - 1))
    assert [record.id for record in await old.jobs.page(limit=2)] == ["a", name(COUNT - 2)]
    with pytest.raises(JobNotFoundError):
        await old.jobs.get(name(COUNT - 1))


@pytest.mark.parametrize("damage", ["missing", "half a line", "rubbish", "entries of others", "a job that runs"])
async def test_the_folders_are_the_truth_whatever_the_index_says(old: World, damage: str) -> None:
    await old.running()
    index = old.root / FILE_NAME
    match damage:
        case "missing":
            index.unlink()
        case "half a line":
            index.write_bytes(index.read_bytes()[:-20])
        case "rubbish":
            index.write_bytes(b'\xff\n[1]\n{"id": 5}\n' + index.read_bytes())
        case "entries of others":
            lines = (b'{"id": "gone-%d", "created_at": 1, "ended_at": 2}\n' % number for number in range(1000))
            index.write_bytes(index.read_bytes() + b"".join(lines))
        case _:
            index.write_bytes(index.read_bytes() + b'{"id": "a", "created_at": 1, "ended_at": 2}\n')
    old.restart_tracker()
    assert len(await old.jobs.page(limit=100)) == COUNT + 1
    assert (await old.reconcile()).status is JobStatus.RUNNING
    assert len(index.read_bytes().splitlines()) < 2 * COUNT, "it does not grow for ever"


async def test_a_service_that_only_reads_uses_the_index_and_leaves_it_alone(
    old: World, tmp_path: Path, opened: Counting
) -> None:
    await old.running()
    content = (old.root / FILE_NAME).read_bytes()
    other = World(tmp_path, "b")
    with opened() as files:
        await other.reconcile()
    assert set(files) == {FILE_NAME, "a/job.json", "a/spec.json"}
    old.report(DONE)
    await old.reconcile()
    other.now += 1
    assert (await other.jobs.get("a")).status is JobStatus.COMPLETED
    assert (old.root / FILE_NAME).read_bytes().startswith(content)
    assert len((old.root / FILE_NAME).read_bytes().splitlines()) == COUNT + 1


# ------------------------------------------------------------------ what ended jobs leave


@pytest.mark.parametrize("end", ["cancelled", "failed", "completed"])
@pytest.mark.parametrize("restarts", [False, True])
async def test_checkpoints_of_a_job_that_cannot_be_resumed_are_removed_after_a_day(
    world: World, end: str, restarts: bool, opened: Counting
) -> None:
    await world.running()
    left = [world.root / "a" / "checkpoints" / "checkpoint-50", world.root / "a" / "ray"]
    for folder in left:
        folder.mkdir(parents=True)
    if end == "cancelled":
        await world.jobs.cancel("a")
    else:
        world.report(DONE if end == "completed" else {"type": "failed"})
        world.cluster.kill("a-1")
    await world.reconcile()
    world.now += KEEP_LEFTOVERS_S - 10
    if restarts:
        world.restart_tracker()
    await world.reconcile()
    assert all(folder.exists() for folder in left)
    world.now += 20
    record = await world.reconcile()
    assert not any(folder.exists() for folder in left)
    assert (world.root / "a" / "pairs.jsonl").exists()
    world.restart_tracker()
    await world.jobs.keep_lease()
    with opened() as files:
        await world.jobs.reconcile()
    assert files == [], "it is done once"
    assert await world.jobs.get("a") == record


async def test_a_job_that_goes_on_keeps_its_checkpoints(world: World) -> None:
    world.policy = replace(world.policy, heartbeat_timeout_s=10 * KEEP_LEFTOVERS_S)
    world.restart_tracker()
    await world.running()
    (world.root / "a" / "checkpoints").mkdir()
    world.now += 2 * KEEP_LEFTOVERS_S
    world.report(STARTED)
    await world.reconcile()
    assert (world.root / "a" / "checkpoints").is_dir()
