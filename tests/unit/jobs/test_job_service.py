"""What clients may do with jobs: names, cancelling in every state, deleting, reading."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import replace

import pytest

from serve_app.domain.errors import (
    ConflictError,
    IllegalTransitionError,
    JobNotFoundError,
    QueueFullError,
    StorageError,
)
from serve_app.jobs.job_folder_readers import TrainingData
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.ray_jobs import RayJobState
from tests.unit.jobs.fake_cluster import DATA, DONE, STARTED, World, checkpoint, progress

# ------------------------------------------------------------------ names


async def test_of_two_jobs_for_one_name_at_once_one_is_refused(world: World) -> None:
    outcomes = await asyncio.gather(world.submit("a", "same"), world.submit("b", "same"), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [JobRecord, ConflictError]
    with pytest.raises(ConflictError, match="the job a is making 'same'"):
        await world.submit("c", "same")


async def test_the_name_of_a_model_that_is_there_is_refused(world: World) -> None:
    (world.models_dir / "same").symlink_to("nowhere")  # a dangling link is in the way of a rename as well
    with pytest.raises(ConflictError, match="there is a model 'same' already"):
        await world.submit("a", "same")


async def test_a_name_is_free_again_after_a_failure_or_a_cancellation(world: World) -> None:
    await world.submit("a", "same")
    await world.jobs.cancel("a")
    await world.submit("b", "same")
    await world.reconcile("b")
    world.report({"type": "failed"}, job_id="b")
    await world.reconcile("b")
    assert (await world.submit("c", "same")).status is JobStatus.PENDING


async def test_the_same_job_twice_is_one_job(world: World) -> None:
    first = await world.submit()
    assert await world.submit() == first
    world.restart_tracker()
    assert (await world.submit()).id == first.id
    assert len(await world.jobs.page(limit=9)) == 1


async def test_a_chosen_name_is_taken_even_for_the_same_order(world: World) -> None:
    await world.submit("a", "same")
    with pytest.raises(ConflictError, match="the job a is making 'same'"):
        await world.submit("b", "same")


async def test_a_job_whose_name_was_made_up_is_the_same_when_it_is_sent_again(world: World) -> None:
    sent = (world.submit(job_id, f"e5-ft-{job_id}", has_generated_name=True) for job_id in ("a", "b", "c"))
    assert [job.id for job in await asyncio.gather(*sent)] == ["a", "a", "a"]
    await world.reconcile()
    world.restart_tracker()
    again = await world.submit("d", "e5-ft-d", has_generated_name=True)
    assert (again.id, again.submission_id) == ("a", "a-1"), "as it is now"
    assert len(await world.jobs.page(limit=9)) == 1
    assert sorted(path.name for path in world.root.iterdir()) == [".lease", "a"]


async def test_another_order_other_data_or_a_minute_later_is_another_job(world: World) -> None:
    await world.submit("a", "e5-ft-a", has_generated_name=True)
    for job_id, more in {
        "b": {"epochs": 2}, "c": {"data": TrainingData(b"{}")}, "d": {"data": replace(DATA, evaluation=b"{}")}
    }.items():  # fmt: skip
        assert (await world.submit(job_id, f"e5-ft-{job_id}", has_generated_name=True, **more)).id == job_id
    world.now += 60
    assert (await world.submit("e", "e5-ft-e", has_generated_name=True)).id == "e"


async def test_a_job_that_is_done_within_the_minute_is_not_done_again(world: World) -> None:
    await world.submit("a", "e5-ft-a", has_generated_name=True)
    await world.reconcile()
    world.publish("e5-ft-a", "a")
    world.report(STARTED, DONE)
    assert (await world.reconcile()).status is JobStatus.COMPLETED
    assert (await world.submit("b", "e5-ft-b", has_generated_name=True)).id == "a"
    shutil.rmtree(world.models_dir / "e5-ft-a")
    assert (await world.submit("c", "e5-ft-c", has_generated_name=True)).id == "c", "its model was deleted"


async def test_a_job_that_was_cancelled_is_not_what_is_sent_again(world: World) -> None:
    await world.submit("a", "e5-ft-a", has_generated_name=True)
    await world.jobs.cancel("a")
    assert (await world.submit("b", "e5-ft-b", has_generated_name=True)).id == "b"


async def test_a_job_that_cannot_be_stored_is_refused_and_leaves_its_name_free(world: World) -> None:
    await world.jobs.reconcile()
    (world.root / ".unfinished-a").write_text("in the way")
    with pytest.raises(StorageError):
        await world.submit("a", "same")
    assert (await world.submit("b", "same")).status is JobStatus.PENDING


async def test_more_jobs_than_may_wait_are_refused_for_now(world: World) -> None:
    world.policy = replace(world.policy, max_waiting_jobs=2)
    world.restart_tracker()
    await world.submit("a")
    await world.submit("b")
    with pytest.raises(QueueFullError) as refusal:
        await world.submit("c")
    assert refusal.value.retry_after_s == 60


# ------------------------------------------------------------------ cancelling


async def test_a_job_that_waits_is_cancelled_and_never_started(world: World) -> None:
    await world.submit()
    assert (await world.jobs.cancel("a")).status is JobStatus.CANCELLED
    await world.reconcile()
    assert world.cluster.started == []


@pytest.mark.parametrize("is_running", [False, True])
async def test_a_job_with_a_ray_job_is_stopped_and_keeps_its_checkpoints(world: World, is_running: bool) -> None:
    await world.submit()
    await world.reconcile()
    if is_running:
        world.report(progress(10), checkpoint(10))
        await world.reconcile()
    (world.root / "a" / "checkpoints").mkdir()
    record = await world.jobs.cancel("a")
    assert (record.status, record.message) == (JobStatus.CANCELLED, "cancelled")
    assert world.cluster.live == []
    assert (world.root / "a" / "checkpoints").is_dir()
    assert "printed by a-1" in await world.jobs.logs("a")
    await world.reconcile()
    assert world.cluster.started == ["a-1"]


async def test_what_the_training_says_of_being_stopped_is_no_failure(world: World) -> None:
    await world.running()
    world.cluster.last_words = [progress(10), {"type": "failed", "reason": "terminated"}]
    record = await world.jobs.cancel("a")
    assert (record.status, record.steps, record.error) == (JobStatus.CANCELLED, 10, None)


@pytest.mark.parametrize("is_said", [False, True])
async def test_a_job_that_was_faster_than_its_cancellation_is_completed(world: World, is_said: bool) -> None:
    await world.running()
    if is_said:
        world.cluster.last_words = [{"type": "published"}, DONE]
    else:
        world.publish("my-a", "a")
    with pytest.raises(IllegalTransitionError, match="completed"):
        await world.jobs.cancel("a")
    assert (await world.jobs.get("a")).status is JobStatus.COMPLETED


@pytest.mark.parametrize("last", [DONE, {"type": "failed"}])
async def test_a_job_that_has_ended_cannot_be_cancelled(world: World, last: dict[str, str]) -> None:
    await world.running()
    world.report(last)
    ended = await world.reconcile()
    with pytest.raises(IllegalTransitionError, match="cannot be cancelled any more"):
        await world.jobs.cancel("a")
    assert await world.jobs.get("a") == ended


async def test_cancelling_twice_is_cancelling_once(world: World) -> None:
    await world.running()
    first, second = await asyncio.gather(world.jobs.cancel("a"), world.jobs.cancel("a"))
    assert first == second == await world.jobs.cancel("a")


@pytest.mark.parametrize("fault", ["is_down", "is_stubborn"])
async def test_a_ray_job_that_does_not_stop_holds_up_no_cancellation_and_is_stopped_later(
    world: World, fault: str
) -> None:
    await world.running()
    setattr(world.cluster, fault, True)
    assert (await world.jobs.cancel("a")).status is JobStatus.CANCELLED
    assert world.cluster.live == ["a-1"]
    world.restart_tracker()  # not even this makes it forgotten
    await world.reconcile()
    assert world.cluster.live == ["a-1"]
    setattr(world.cluster, fault, False)
    await world.reconcile()
    assert world.cluster.live == []


async def test_a_ray_job_that_does_not_stop_is_not_forgotten_by_a_look_that_had_begun_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.running()
    world.cluster.is_stubborn = True
    states, answer = world.cluster.states, asyncio.Event()

    async def slow_states() -> Mapping[str, RayJobState]:
        monkeypatch.undo()  # the next ones are quick
        told = await states()
        await answer.wait()
        return told

    monkeypatch.setattr(world.cluster, "states", slow_states)
    looking = asyncio.create_task(world.jobs.reconcile())
    await asyncio.sleep(0)
    await world.jobs.cancel("a")
    answer.set()
    await looking
    world.cluster.is_stubborn = False
    await world.reconcile()
    assert world.cluster.live == []


async def test_a_cancellation_does_not_wait_for_a_start_that_hangs_and_what_comes_of_it_is_stopped(
    world: World,
) -> None:
    await world.submit()
    world.cluster.is_hanging = True
    looking = asyncio.create_task(world.jobs.reconcile())
    async with asyncio.timeout(10):
        await world.cluster.was_asked.wait()
    async with asyncio.timeout(10):
        assert (await world.jobs.cancel("a")).status is JobStatus.CANCELLED
        await looking
    world.cluster.is_hanging = False
    world.cluster.late()
    assert world.cluster.live == ["a-1"]
    await world.reconcile()
    assert world.cluster.live == []


async def test_ray_is_left_alone_again_when_what_was_asked_for_never_appears(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.submit()
    world.cluster.is_slow = True
    await world.reconcile()
    await world.jobs.cancel("a")
    await world.reconcile()
    asked = 0
    states = world.cluster.states

    async def counted() -> Mapping[str, RayJobState]:
        nonlocal asked
        asked += 1
        return await states()

    monkeypatch.setattr(world.cluster, "states", counted)
    await world.reconcile()
    assert asked == 1, "it may still appear"
    world.now += 3600
    await world.reconcile()
    assert asked == 1


async def test_a_look_leaves_a_job_alone_that_is_being_cancelled(world: World) -> None:
    await world.running()
    world.cluster.is_stubborn = True
    cancelling = asyncio.create_task(world.jobs.cancel("a"))
    await asyncio.sleep(0)
    world.cluster.kill("a-1")
    await world.reconcile()
    assert (await cancelling).status is JobStatus.CANCELLED
    assert world.cluster.started == ["a-1"]


# ------------------------------------------------------------------ reading and deleting


async def test_jobs_are_listed_newest_first_page_by_page(world: World) -> None:
    for name in "abcde":
        await world.submit(name)
    world.restart_tracker()
    pages, after = [], None
    while page := await world.jobs.page(limit=2, after=after):
        pages.append([record.id for record in page])
        after = page[-1].id
    assert pages == [["e", "d"], ["c", "b"], ["a"]]


async def test_an_ended_job_is_deleted_and_its_model_stays(world: World) -> None:
    await world.running()
    with pytest.raises(ConflictError, match="cancel it before"):
        await world.jobs.delete("a")
    world.publish("my-a", "a")
    world.report(DONE)
    await world.reconcile()
    await world.jobs.delete("a")
    assert not (world.root / "a").exists()
    assert (world.models_dir / "my-a").is_dir()
    world.restart_tracker()
    assert await world.jobs.page(limit=9) == []


@pytest.mark.parametrize("end", ["cancelled", "failed"])
async def test_a_job_without_a_result_leaves_nothing_of_it(world: World, end: str) -> None:
    await world.running()
    staged, other = world.stage("a"), world.stage("b")
    if end == "failed":
        world.report({"type": "failed"})
        await world.reconcile()
    else:
        await world.jobs.cancel("a")
    assert not staged.exists()
    assert other.exists()
    world.stage("a")  # by a training that did not stop
    await world.jobs.delete("a")
    assert not staged.exists()


async def test_of_two_deletions_at_once_one_finds_nothing(world: World) -> None:
    await world.submit()
    await world.jobs.cancel("a")
    outcomes = await asyncio.gather(world.jobs.delete("a"), world.jobs.delete("a"), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), JobNotFoundError]


async def test_an_unknown_job_is_not_found_by_anybody(world: World) -> None:
    for question in (
        world.jobs.get("x"),
        world.jobs.cancel("x"),
        world.jobs.delete("x"),
        world.jobs.events("x"),
        world.jobs.logs("x"),
        world.jobs.loss_curve("x"),
        world.jobs.page(limit=1, after="x"),
    ):
        with pytest.raises(JobNotFoundError, match="Job not found"):
            await question


async def test_the_diary_tells_what_happened_and_goes_on_from_a_cursor(world: World) -> None:
    await world.running()
    world.report({"type": "event", "level": "warning", "message": "out of memory, mini batch halved"}, checkpoint(50))
    await world.reconcile()
    events = await world.jobs.events("a")
    assert [event.message for event in events] == [
        "starting",
        "training on cpu",
        "out of memory, mini batch halved",
        "checkpoint at step 50",
    ]
    assert await world.jobs.events("a", after=3) == events[3:]
    assert await world.jobs.events("a", after=4) == []


async def test_logs_are_those_of_the_folder_and_of_the_ray_job_that_runs(world: World) -> None:
    await world.running()
    (world.root / "a" / "logs" / "driver.log").write_text("from the driver")
    assert await world.jobs.logs("a") == "==> driver <==\nfrom the driver\n==> ray-1 <==\nprinted by a-1\n"
    world.cluster.is_down = True
    assert "does not answer" in await world.jobs.logs("a")


async def test_what_jobs_were_asked_to_do_is_known_after_a_restart_and_missing_where_it_cannot_be_read(
    world: World,
) -> None:
    for job_id in ("a", "b"):
        await world.submit(job_id, job_id)
    (world.root / "b" / "spec.json").write_text("{")
    world.restart_tracker()
    specs = await world.jobs.specs(["a", "b", "nobody"])
    assert {job_id: spec.model_name for job_id, spec in specs.items()} == {"a": "a"}
