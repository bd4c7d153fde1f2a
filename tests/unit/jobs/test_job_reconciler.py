"""Records and Ray Jobs are kept in step, whatever dies: the training, the tracker, the cluster, or all of them."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from typing import Any

import pytest

from serve_app.jobs.job_record import JobStatus
from serve_app.jobs.ray_jobs import RayJobState
from tests.unit.jobs.fake_cluster import DONE, STARTED, World, checkpoint, progress


async def test_a_job_goes_its_way_from_pending_to_completed(world: World) -> None:
    assert (await world.submit()).status is JobStatus.PENDING
    assert (await world.reconcile()).submission_id == "a-1"
    assert world.cluster.live == ["a-1"]
    world.report(STARTED, progress(10))
    record = await world.reconcile()
    assert (record.status, record.steps, record.progress) == (JobStatus.RUNNING, 10, 9.9)
    world.report(progress(100), {"type": "published"}, DONE)
    world.cluster.kill("a-1")
    record = await world.reconcile()
    assert (record.status, record.progress, record.attempts) == (JobStatus.COMPLETED, 100.0, 1)
    assert world.cluster.started == ["a-1"]


async def test_half_a_line_is_read_when_it_is_whole(world: World) -> None:
    await world.running()
    world.report('{"type": "progress", "st')
    assert (await world.reconcile()).steps == 0
    world.report('ep": 7}\n')
    assert (await world.reconcile()).steps == 7


async def test_a_job_that_died_while_it_wrote_is_started_again_and_understood(world: World) -> None:
    await world.running()
    world.report(checkpoint(50), '{"time": 1.0, "type": "progr')
    world.cluster.kill("a-1")
    await world.reconcile()
    world.report(STARTED | {"resumed_step": 50})
    record = await world.reconcile()
    assert (record.status, record.steps, record.attempts) == (JobStatus.RUNNING, 50, 2)


# ------------------------------------------------------------------ what dies


async def test_a_training_that_died_without_a_word_goes_on_from_its_checkpoint(world: World) -> None:
    await world.running()
    world.report(progress(60), checkpoint(50))
    world.cluster.kill("a-1")
    record = await world.reconcile()
    assert (record.status, record.submission_id) == (JobStatus.PENDING, "a-2")
    assert world.cluster.live == ["a-2"]
    world.report(STARTED | {"resumed_step": 50}, progress(55))
    record = await world.reconcile()
    assert (record.steps, record.progress) == (55, 59.4), "progress never falls"
    events = [event.message for event in await world.jobs.events("a")]
    assert "the training process died; training will resume from step 50" in events


async def test_three_attempts_that_got_nowhere_are_enough(world: World) -> None:
    await world.running()
    for attempt in (1, 2, 3):
        world.cluster.kill(f"a-{attempt}")
        record = await world.reconcile()
    assert (record.status, record.attempts) == (JobStatus.FAILED, 3)
    assert (record.error or "").startswith("the training process died, and so 3 attempts in a row were lost")
    await world.reconcile()
    assert world.cluster.started == ["a-1", "a-2", "a-3"]


@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_job_survives_restarts_of_the_cluster_and_for_ever_if_it_only_waited(
    world: World, has_begun: bool
) -> None:
    await world.submit()
    for attempt in range(1, 11):
        record = await world.reconcile()
        assert (record.submission_id, record.attempts) == (f"a-{attempt}", attempt)
        if has_begun:
            world.report(STARTED)
            assert (await world.reconcile()).status is JobStatus.RUNNING
        world.cluster.restart()
        world.restart_tracker()
    record = await world.reconcile()
    if has_begun:
        assert record.status is JobStatus.FAILED, "it may bring the cluster down each time"
        assert (record.error or "").startswith("the cluster was restarted, 10 times in a row while this job was under")
    else:
        assert (record.status, record.attempts) == (JobStatus.PENDING, 11)
        assert (record.failed_attempts, record.interruptions) == (0, 0)


async def test_an_attempt_that_reached_a_new_checkpoint_was_not_in_vain(world: World) -> None:
    await world.running()
    for attempt in range(1, 8):
        world.report(checkpoint(10 * attempt))
        world.cluster.kill(f"a-{attempt}")
        record = await world.reconcile()
    assert (record.status, record.attempts) == (JobStatus.PENDING, 8)


async def test_a_training_that_says_why_it_failed_is_not_started_again(world: World) -> None:
    await world.running()
    world.report({"type": "failed", "reason": "the loss is not finite"})
    world.cluster.kill("a-1")
    record = await world.reconcile()
    assert (record.status, record.error) == (JobStatus.FAILED, "the loss is not finite")
    await world.reconcile()
    assert world.cluster.started == ["a-1"]


async def test_a_training_that_published_and_died_before_it_could_say_so_is_done(world: World) -> None:
    await world.running()
    (world.root / "a" / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    world.publish("my-a", "a")
    world.cluster.kill("a-1")
    assert (await world.reconcile()).status is JobStatus.COMPLETED
    assert not (world.root / "a" / "checkpoints").exists(), "it could not tidy up either"


async def test_the_model_of_another_job_is_not_taken_for_the_result(world: World) -> None:
    await world.running()
    world.publish("my-a", "b")
    world.cluster.kill("a-1")
    assert (await world.reconcile()).status is JobStatus.PENDING


@pytest.mark.parametrize("is_started", [False, True])
async def test_a_new_tracker_goes_on_where_the_old_one_was(world: World, is_started: bool) -> None:
    await world.submit()
    await world.reconcile()
    if is_started:
        world.report(STARTED, progress(10))
        await world.reconcile()
    world.restart_tracker()
    world.report(STARTED, progress(20), DONE)  # said while nobody listened, or as nobody had time to write it down
    record = await world.reconcile()
    assert (record.status, record.attempts) == (JobStatus.COMPLETED, 1)
    assert world.cluster.started == ["a-1"]
    ids = [event.id for event in await world.jobs.events("a")]
    assert ids == list(range(1, len(ids) + 1))


@pytest.mark.parametrize("said", [[], [STARTED, progress(10)]], ids=["silent", "training"])
async def test_a_tracker_that_died_between_starting_and_writing_it_down_starts_nothing_twice_and_stops_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, said: list[dict[str, Any]]
) -> None:
    await world.submit()
    with monkeypatch.context() as patch:
        patch.setattr("serve_app.jobs.job_folders.replace", full_disk)
        assert (await world.reconcile()).submission_id is None
    world.report(*said)
    world.restart_tracker()
    for _ in range(3):
        record = await world.reconcile()
        assert (record.submission_id, record.attempts) == ("a-1", 1)
        assert record.status is (JobStatus.RUNNING if said else JobStatus.PENDING)
        assert world.cluster.live == world.cluster.started == ["a-1"]


async def test_what_is_said_while_ray_does_not_answer_leads_into_no_dead_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.submit()
    with monkeypatch.context() as patch:
        patch.setattr("serve_app.jobs.job_folders.replace", full_disk)
        await world.reconcile()
    world.cluster.is_down = True
    world.restart_tracker()
    world.report(STARTED, progress(10))
    assert (await world.reconcile()).status is JobStatus.PENDING
    world.cluster.is_down = False
    world.report(progress(20))
    record = await world.reconcile()
    assert (record.status, record.submission_id, record.steps) == (JobStatus.RUNNING, "a-1", 20)


async def test_the_last_words_of_a_dead_training_do_not_keep_its_job_from_starting_again(world: World) -> None:
    await world.running()
    world.cluster.kill("a-1")
    world.cluster.is_slow = True  # so that the job has no Ray Job for a while
    await world.reconcile()
    world.report(progress(60))
    record = await world.reconcile()
    assert (record.status, record.submission_id) == (JobStatus.PENDING, None)
    world.cluster.is_slow = False
    assert (await world.reconcile()).submission_id == "a-2"


async def test_a_ray_job_that_appears_late_is_written_down(world: World) -> None:
    world.cluster.is_slow = True
    await world.submit()
    assert (await world.reconcile()).pending_reason is not None
    world.cluster.late()
    for _ in range(2):
        record = await world.reconcile()
        assert (record.submission_id, record.pending_reason) == ("a-1", None)
        assert world.cluster.live == ["a-1"]


async def test_a_ray_job_that_appears_after_its_job_was_cancelled_is_stopped(world: World) -> None:
    world.cluster.is_slow = True
    await world.submit()
    await world.reconcile()
    await world.jobs.cancel("a")
    await world.reconcile()
    world.cluster.late()
    await world.reconcile()
    assert world.cluster.live == []


async def test_a_ray_job_that_was_never_written_down_is_stopped_with_its_job(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.submit()
    with monkeypatch.context() as patch:
        patch.setattr("serve_app.jobs.job_folders.replace", full_disk)
        await world.reconcile()
        await world.reconcile()
    await world.jobs.cancel("a")
    await world.reconcile()
    assert world.cluster.live == []


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_after_a_restart_of_the_whole_cluster_all_jobs_go_on(world: World) -> None:
    world.policy = replace(world.policy, max_concurrent_jobs=2)
    world.restart_tracker()
    for name in ("a", "b", "c"):
        await world.submit(name)
    await world.reconcile()
    world.report(STARTED, checkpoint(30))
    await world.reconcile()
    world.cluster.restart()
    world.restart_tracker()
    await world.reconcile()
    assert world.cluster.live == ["a-2", "b-2"]
    assert (await world.jobs.get("c")).pending_reason == "waiting for another job to end"
    events = [event.message for event in await world.jobs.events("a")]
    assert "the cluster was restarted; training will resume from step 30" in events


async def test_a_full_disk_loses_nothing_that_the_training_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.running()
    world.report(progress(10))
    with monkeypatch.context() as patch:
        patch.setattr("serve_app.jobs.job_folders.replace", full_disk)
        assert (await world.reconcile()).steps == 0
    assert (await world.reconcile()).steps == 10


async def test_while_ray_does_not_answer_nothing_is_judged(world: World) -> None:
    await world.running()
    await world.submit("b")
    world.cluster.is_down = True
    world.report(progress(10))
    record = await world.reconcile()
    assert (record.status, record.steps) == (JobStatus.RUNNING, 10), "the folder tells all the same"
    world.cluster.is_down = False
    assert (await world.reconcile()).attempts == 1


async def test_a_job_that_cannot_be_started_says_why(world: World) -> None:
    await world.submit()
    world.cluster.is_down = True
    reason = (await world.reconcile()).pending_reason or ""
    assert reason.startswith("waiting for the cluster: the Ray Jobs API does not answer")
    world.cluster.is_down = False
    record = await world.reconcile()
    assert (record.submission_id, record.pending_reason) == ("a-1", None)


async def test_a_ray_job_that_somebody_stopped_is_a_cancelled_job(world: World) -> None:
    await world.running()
    world.cluster.jobs["a-1"] = RayJobState.STOPPED
    record = await world.reconcile()
    assert (record.status, record.message) == (JobStatus.CANCELLED, "cancelled: its Ray Job was stopped from outside")


async def test_a_training_that_is_silent_for_too_long_is_started_again(world: World) -> None:
    await world.running()
    world.now += world.policy.heartbeat_timeout_s - 5
    world.report(progress(1) | {"time": world.now})
    await world.reconcile()
    world.now += world.policy.heartbeat_timeout_s - 5
    assert (await world.reconcile()).attempts == 1
    world.now += 10
    await world.reconcile()
    assert world.cluster.live == ["a-2"]


@pytest.mark.parametrize("stamp", [0.0, 1e12], ids=["clock behind", "clock ahead"])
async def test_silence_is_the_absence_of_new_lines_whatever_the_clocks_say(world: World, stamp: float) -> None:
    await world.running()
    world.wall_clock_is_ahead_s = -5000 if stamp else 1e6  # it was set
    for step in range(1, 4):
        world.now += world.policy.heartbeat_timeout_s - 5
        world.report(progress(step) | {"time": stamp})
        assert (await world.reconcile()).attempts == 1
    world.now += world.policy.heartbeat_timeout_s + 1
    assert (await world.reconcile()).submission_id == "a-2"


async def test_a_silent_training_that_does_not_stop_has_no_second_one_beside_it(world: World) -> None:
    await world.running()
    world.cluster.is_stubborn = True
    world.now += world.policy.heartbeat_timeout_s + 10
    record = await world.reconcile()
    assert (record.submission_id, world.cluster.started) == ("a-1", ["a-1"])
    world.restart_tracker()  # whoever comes next must not take it for stopped from outside
    world.cluster.jobs["a-1"] = RayJobState.STOPPED
    record = await world.reconcile()
    assert (record.status, record.submission_id) == (JobStatus.PENDING, "a-2")
    assert any("reported nothing for" in event.message for event in await world.jobs.events("a"))


async def test_a_training_that_never_begins_although_it_could_is_started_again(world: World) -> None:
    await world.submit()
    await world.reconcile()
    world.available = {"CPU": 0.5}
    for attempt in (1, 2):
        world.now += world.policy.heartbeat_timeout_s - 10
        assert (await world.reconcile()).submission_id == f"a-{attempt}"
        world.now += 20
        await world.reconcile()
        assert world.cluster.live == [f"a-{attempt + 1}"]
    events = [event.message for event in await world.jobs.events("a")]
    assert any(event.startswith("the training lacked no resources and did not start for 361") for event in events)


async def test_a_training_that_waits_for_resources_may_be_silent_and_has_its_hour_when_they_are_there(
    world: World,
) -> None:
    world.available = {"CPU": 0.4}
    await world.submit()
    for _ in range(3):
        world.now += 2 * world.policy.heartbeat_timeout_s
        assert (await world.reconcile()).pending_reason == "waiting for 0.5 CPU"
    world.available = {"CPU": 0.5}
    assert (await world.reconcile()).pending_reason is None
    world.now += world.policy.heartbeat_timeout_s - 10
    assert (await world.reconcile()).submission_id == "a-1"
    world.now += 20
    assert (await world.reconcile()).submission_id == "a-2"


async def test_a_job_whose_ray_job_is_stopped_from_outside_while_it_waits_is_cancelled_however_long_it_waited(
    world: World,
) -> None:
    world.available = {"CPU": 0.4}
    await world.submit()
    world.now += 2 * world.policy.heartbeat_timeout_s
    await world.reconcile()
    world.now += 2 * world.policy.heartbeat_timeout_s
    world.cluster.jobs["a-1"] = RayJobState.STOPPED
    assert (await world.reconcile()).status is JobStatus.CANCELLED


async def test_what_goes_wrong_with_one_job_stays_with_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.policy = replace(world.policy, max_concurrent_jobs=2)
    world.restart_tracker()
    await world.running("a")
    await world.running("b")
    (world.root / "a" / "training.jsonl").unlink()
    (world.root / "a" / "training.jsonl").mkdir()  # reading it fails
    world.report(progress(10), job_id="b")
    assert (await world.reconcile("b")).steps == 10


# ------------------------------------------------------------------ who comes next


async def test_jobs_are_started_in_the_order_they_came_and_only_so_many_at_once(world: World) -> None:
    for name in ("a", "b", "c"):
        await world.submit(name)
    await world.reconcile()
    assert world.cluster.live == ["a-1"]
    assert (await world.jobs.get("b")).message == "waiting for another job to end"
    world.report(DONE)
    world.cluster.kill("a-1")
    assert (await world.reconcile("b")).pending_reason is None
    assert world.cluster.started == ["a-1", "b-1"]


@pytest.mark.parametrize(
    ("wanted", "available", "reason"),
    [
        ({}, {"CPU": 0.4}, "waiting for 0.5 CPU"),
        ({}, {"CPU": 0.5}, None),
        ({"num_workers": 2}, {"CPU": 0.5}, "waiting for 1 CPU"),
        ({"gpus_per_worker": 1.0}, {"CPU": 8.0}, "waiting for 1 GPU"),
        ({"gpus_per_worker": 0.5, "num_workers": 2}, {"CPU": 8.0, "GPU": 0.5}, "waiting for 1 GPU"),
        ({"gpus_per_worker": 1.0}, {}, None),
    ],
)
async def test_a_job_that_does_not_fit_yet_says_what_it_waits_for(
    world: World, wanted: dict[str, Any], available: dict[str, float], reason: str | None
) -> None:
    world.available = available
    await world.submit(**wanted)
    assert (await world.reconcile()).pending_reason == reason
    world.available = {"CPU": 9.0, "GPU": 9.0}
    assert (await world.reconcile()).pending_reason is None


async def test_what_one_job_gets_the_next_one_lacks_and_the_cluster_is_asked_once_a_look(world: World) -> None:
    world.policy = replace(world.policy, max_concurrent_jobs=3)
    world.restart_tracker()
    world.available = {"CPU": 1.0, "GPU": 1.0}
    for name in ("a", "b", "c"):
        await world.submit(name)
    await world.reconcile()
    reasons = [(await world.jobs.get(name)).pending_reason for name in ("a", "b", "c")]
    assert reasons == [None, None, "waiting for 0.5 CPU"]
    assert world.questions == 1


async def test_a_job_that_is_slow_to_start_says_what_it_may_wait_for(world: World) -> None:
    await world.submit()
    await world.reconcile()
    world.available = {"CPU": 0.1}
    world.now += world.policy.slow_start_s - 5
    assert (await world.reconcile()).pending_reason is None
    world.now += 5
    for _ in range(2):
        assert (await world.reconcile()).pending_reason == "not started yet; possibly waiting for 0.5 CPU"
    world.report({"type": "event", "message": "measuring the base"})  # which may take long, too
    for _ in range(2):
        world.now += 2 * world.policy.slow_start_s
        record = await world.reconcile()
        assert (record.status, record.pending_reason) == (JobStatus.RUNNING, None)


async def test_a_ray_job_of_no_live_job_is_stopped(world: World) -> None:
    await world.running()
    world.cluster.jobs["a-0"] = world.cluster.jobs["gone-1"] = RayJobState.LIVE
    world.cluster.folders |= {"a-0": world.root / "a", "gone-1": world.root / "a"}
    world.restart_tracker()
    await world.reconcile()
    assert world.cluster.live == ["a-1"]


async def test_a_job_whose_record_is_corrupt_has_failed_and_trains_no_more(world: World) -> None:
    await world.running()
    (world.root / "a" / "job.json").write_text("{")
    world.restart_tracker()
    record = await world.reconcile()
    assert (record.status, record.model_name) == (JobStatus.FAILED, "my-a")
    assert "cannot be read" in (record.error or "")
    assert world.cluster.live == []
    assert (await world.submit("b", "my-a")).status is JobStatus.PENDING, "its name is free"


async def test_the_log_of_an_attempt_outlives_the_cluster(world: World) -> None:
    await world.running()
    world.cluster.kill("a-1")
    await world.reconcile()
    world.cluster.restart()
    world.restart_tracker()
    await world.reconcile()
    logs = await world.jobs.logs("a")
    assert "printed by a-1" in logs
    assert "printed by a-3" in logs
