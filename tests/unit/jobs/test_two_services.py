"""Two services on one jobs folder: one has jobs trained, the other reads them and takes over when the first stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serve_app.domain.errors import JobNotFoundError, JobsReadOnlyError
from serve_app.jobs.job_folders import JobFolders
from serve_app.jobs.job_record import JobStatus
from serve_app.jobs.lease import LEASE_TIMEOUT_S
from tests.unit.jobs.fake_cluster import DONE, STARTED, World, checkpoint, progress


@pytest.fixture
async def first(tmp_path: Path) -> World:
    """A service that trains the job ``a``."""
    world = World(tmp_path)
    await world.running()
    world.report(progress(60), checkpoint(50))
    await world.reconcile()
    return world


@pytest.fixture
def second(tmp_path: Path, first: World) -> World:
    return World(tmp_path, "b")


async def take_over(world: World) -> None:
    """Time passes in which nobody else renews the lease."""
    for _ in range(int(LEASE_TIMEOUT_S) + 3):
        await world.reconcile()


async def test_the_other_service_reads_everything_and_changes_nothing(first: World, second: World) -> None:
    await second.reconcile()
    assert (await second.jobs.get("a")).steps == 60
    assert [record.id for record in await second.jobs.page(limit=9)] == ["a"]
    assert await second.jobs.events("a") == await first.jobs.events("a")
    assert set(await second.jobs.specs(["a"])) == {"a"}
    assert [record.id for record in await second.jobs.live()] == ["a"], "so that its base model is not deleted here"
    before = {path: path.read_bytes() for path in first.root.rglob("*") if path.is_file()}
    for refused in (second.submit("x"), second.jobs.cancel("a"), second.jobs.delete("a")):
        with pytest.raises(JobsReadOnlyError, match="managed by service A: submit, cancel and delete there"):
            await refused
    assert {path: path.read_bytes() for path in first.root.rglob("*") if path.is_file()} == before
    assert (second.cluster.started, first.cluster.live) == ([], ["a-1"])


async def test_the_other_service_sees_what_comes_and_goes(first: World, second: World) -> None:
    await second.reconcile()
    await first.submit("b")
    first.report(DONE)
    await first.reconcile()
    await first.jobs.delete("a")
    second.now += 1
    assert [record.id for record in await second.jobs.page(limit=9)] == ["b"]


async def test_the_other_service_forgets_a_job_that_was_deleted_after_it_was_read(first: World, second: World) -> None:
    first.report(DONE)
    await first.reconcile()
    assert (await second.reconcile()).status is JobStatus.COMPLETED
    await first.jobs.delete("a")
    second.now += 1
    assert await second.jobs.page(limit=9) == []
    with pytest.raises(JobNotFoundError):
        await second.jobs.get("a")


async def test_a_submission_that_is_being_written_is_not_cleared_by_another_service(
    first: World, second: World
) -> None:
    (first.root / ".unfinished-x").mkdir()
    await second.reconcile()
    assert (first.root / ".unfinished-x").is_dir()
    await take_over(second)
    assert not (first.root / ".unfinished-x").exists()


async def test_a_service_that_has_stopped_is_succeeded_and_its_job_goes_on(first: World, second: World) -> None:
    await take_over(second)
    assert second.cluster.live == ["a-2"]
    record = await second.jobs.get("a")
    assert (record.status, record.attempts, record.checkpoint) == (JobStatus.PENDING, 2, 50)
    assert any(
        "the cluster was restarted; training will resume from step 50" in n.message
        for n in await second.jobs.events("a")
    )
    assert (await second.submit("b")).status is JobStatus.PENDING


async def test_a_service_that_wakes_up_after_that_overwrites_nothing_and_stops_its_trainings(
    first: World, second: World
) -> None:
    await take_over(second)
    second.report(STARTED | {"resumed_step": 50})
    await second.reconcile()
    with pytest.raises(JobsReadOnlyError, match="service B"):
        await first.jobs.cancel("a")
    await first.reconcile()
    assert (first.cluster.live, second.cluster.live) == ([], ["a-2"])
    assert (await first.jobs.get("a")).attempts == 2
    record = await second.reconcile()
    assert (record.status, record.attempts) == (JobStatus.RUNNING, 2)
    assert json.loads((first.root / "a" / "job.json").read_text())["attempts"] == 2


async def test_a_submission_that_is_overtaken_by_a_takeover_leaves_nothing(
    first: World, second: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = JobFolders.create

    def suspended(*args: Any) -> None:
        first.now += LEASE_TIMEOUT_S
        number = second.lease.poll()
        while number is None:
            second.now += 1
            number = second.lease.poll()
        create(*args)

    monkeypatch.setattr(JobFolders, "create", suspended)
    with pytest.raises(JobsReadOnlyError):
        await first.submit("x")
    assert not list(first.root.glob("*x"))


async def test_a_service_that_stops_on_purpose_is_succeeded_at_once(first: World, second: World) -> None:
    await second.reconcile()
    await first.jobs.release_lease()
    await second.reconcile()
    assert (await second.submit("b")).status is JobStatus.PENDING
    with pytest.raises(JobsReadOnlyError):
        await first.submit("c")


async def test_the_first_service_takes_over_again(first: World, second: World) -> None:
    await take_over(second)
    await first.reconcile()
    await take_over(first)
    assert (await first.jobs.get("a")).attempts == 3
    await second.reconcile()
    assert (first.cluster.live, second.cluster.live) == (["a-3"], [])
