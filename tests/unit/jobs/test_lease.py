"""The lease of a jobs folder: one holder at a time, whatever is suspended, crashes or comes late."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serve_app.domain.errors import JobsReadOnlyError, StorageError
from serve_app.jobs.lease import LEASE_TIMEOUT_S, Lease
from serve_app.jobs.lease_file import LEASE_FOLDER, LeaseHolder, LeaseState, current_lease
from serve_app.jobs.process_identity import has_ended, raylet_process, this_process
from tests.unit.jobs.full_disk import fail_overwriting, fill_disk


class Tracker:
    """A tracker's lease and its own clock, which has nothing to do with the others'."""

    def __init__(self, root: Path, cluster: str, *, now: float = 0.0, dead: set[str] | None = None) -> None:
        self.now = now
        holder = LeaseHolder(cluster, f"service {cluster}", f"process {cluster}")
        is_dead = (set() if dead is None else dead).__contains__
        self.lease = Lease(root, holder, clock=lambda: self.now, has_ended=is_dead)

    def poll(self) -> int | None:
        self.now += 1.0
        return self.lease.poll()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


@pytest.fixture
def a(root: Path) -> Tracker:
    return Tracker(root, "a", now=1e6)


@pytest.fixture
def b(root: Path) -> Tracker:
    return Tracker(root, "b")


def wait_out(tracker: Tracker) -> int:
    """Polls until the tracker has the lease; how many polls that took."""
    for polls in range(1, 1000):
        if tracker.poll() is not None:
            return polls
    raise AssertionError("the lease is never taken")


def test_the_first_tracker_holds_the_lease_for_as_long_as_it_renews_it(a: Tracker, b: Tracker) -> None:
    assert a.poll() == 1
    for _ in range(5 * int(LEASE_TIMEOUT_S)):
        assert b.poll() is None
        assert a.poll() == 1
    a.lease.require(1)
    with pytest.raises(JobsReadOnlyError, match="managed by service a: submit, cancel and delete there") as refusal:
        b.lease.require(1)
    assert refusal.value.retry_after_s == LEASE_TIMEOUT_S


def test_a_lease_passes_on_after_its_holder_was_silent_on_the_successors_own_clock(a: Tracker, b: Tracker) -> None:
    a.poll()
    assert LEASE_TIMEOUT_S < wait_out(b) < LEASE_TIMEOUT_S + 5
    assert b.lease.number == 2
    assert (b.lease.holder_name, a.poll(), a.lease.holder_name) == ("service b", None, "service b")
    assert wait_out(a) > LEASE_TIMEOUT_S - 1, "it waits like everybody else"


def test_a_successor_that_was_suspended_itself_has_not_listened(a: Tracker, b: Tracker) -> None:
    a.poll()
    b.poll()
    b.now += 1000 * LEASE_TIMEOUT_S  # and the holder had no time to renew since it woke up either
    assert b.poll() is None
    a.poll()
    assert b.poll() is None


def test_a_holder_that_was_suspended_and_wakes_up_writes_nothing(root: Path, a: Tracker, b: Tracker) -> None:
    a.poll()
    wait_out(b)
    b.lease.require(2)
    for wakes in (a.lease.require, lambda number: a.poll() or a.lease.require(number)):
        with pytest.raises(JobsReadOnlyError, match="service b"):
            wakes(1)
    a.lease.release()  # which must not be taken for its successor's
    assert b.poll() == 2


def test_a_renewal_that_was_suspended_before_it_wrote_does_no_harm(
    root: Path, a: Tracker, b: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    a.poll()
    write = os.pwrite

    def late(*args: Any) -> int:
        monkeypatch.setattr(os, "pwrite", write)
        wait_out(b)
        return write(*args)

    monkeypatch.setattr(os, "pwrite", late)
    assert a.poll() is None
    state = current_lease(root)
    assert state is not None
    assert (state.number, state.holder and state.holder.cluster, b.poll()) == (2, "b", 2)


def test_of_two_successors_at_once_one_gets_the_lease(
    root: Path, a: Tracker, b: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = Tracker(root, "c")
    a.poll()
    while b.lease._observer._unchanged_s < LEASE_TIMEOUT_S - 1:
        b.poll()
        c.poll()
    is_expired = c.lease._is_expired

    def overtaken(lease: LeaseState) -> bool:
        """Between the decision to take the lease and the taking, the other successor gets it."""
        return is_expired(lease) and wait_out(b) > 0

    monkeypatch.setattr(c.lease, "_is_expired", overtaken)
    for _ in range(5):
        assert c.poll() is None
    assert (b.poll(), c.lease.holder_name) == (2, "service b")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"cluster": "a"}', b"\xff"])
def test_a_lease_whose_holder_died_while_it_wrote_is_taken_after_the_timeout(
    root: Path, b: Tracker, content: bytes
) -> None:
    (root / LEASE_FOLDER).mkdir(parents=True)
    (root / LEASE_FOLDER / f"{7:012d}").write_bytes(content)
    (root / LEASE_FOLDER / f".{7:012d}-x7f").write_bytes(b"{")
    assert wait_out(b) > LEASE_TIMEOUT_S - 1
    assert b.lease.number == 8
    assert [path.name for path in (root / LEASE_FOLDER).iterdir()] == [f"{8:012d}"]


def test_a_lease_that_was_released_is_taken_at_once_and_not_by_who_released_it(a: Tracker, b: Tracker) -> None:
    a.poll()
    a.lease.release()
    with pytest.raises(JobsReadOnlyError):
        a.lease.require(1)
    assert (a.poll(), b.poll()) == (None, 2)


def test_the_same_cluster_takes_over_at_once_but_a_tracker_that_was_replaced_does_not_take_it_back(root: Path) -> None:
    old, new = Tracker(root, "a"), Tracker(root, "a")
    assert (old.poll(), new.poll()) == (1, 2)
    for _ in range(3 * int(LEASE_TIMEOUT_S)):
        assert (old.poll(), new.poll()) == (None, 2)


def test_nobody_waits_for_a_process_of_this_machine_that_has_ended(root: Path, a: Tracker) -> None:
    a.poll()
    dead: set[str] = set()
    b = Tracker(root, "b", dead=dead)
    assert b.poll() is None
    dead.add("process a")
    assert b.poll() == 2


def test_a_full_disk_ends_no_lease(a: Tracker, b: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    a.poll()
    fill_disk(monkeypatch)
    for _ in range(2 * int(LEASE_TIMEOUT_S)):
        assert (a.poll(), b.poll()) == (1, None)
    a.now += 5
    a.lease.require(1)


def test_a_holder_that_cannot_renew_works_until_a_successor_may_come(
    a: Tracker, b: Tracker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    a.poll()
    with monkeypatch.context() as patch:
        fail_overwriting(patch)
        for _ in range(int(LEASE_TIMEOUT_S)):
            assert a.poll() == 1
            a.lease.require(1)
        assert len([record for record in caplog.records if "cannot be renewed" in record.message]) == 1
        a.now += 1
        with pytest.raises(StorageError, match="the lease cannot be renewed"):
            a.lease.require(1)
    a.lease.require(1)  # there is room again, and nobody has come
    wait_out(b)
    fail_overwriting(monkeypatch)
    a.now += 3
    with pytest.raises(JobsReadOnlyError, match="service b"):
        a.lease.require(1)


def test_a_tracker_that_cannot_write_the_lease_takes_none(
    root: Path, a: Tracker, b: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_overwriting(patch)
        for _ in range(3):
            with pytest.raises(StorageError, match=r"cannot be written .*, so here they can only be read"):
                a.poll()
            assert (a.lease.number, list((root / LEASE_FOLDER).iterdir())) == (None, [])
    assert (b.poll(), a.poll()) == (1, None)


def test_a_folder_that_cannot_be_used_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        Tracker(tmp_path / "file", "a").poll()


def test_a_process_has_ended_when_it_is_gone_or_its_number_is_another_ones() -> None:
    me = this_process()
    assert me is not None
    assert not has_ended(me)
    boot, namespace, number, start_time = me.split(" ")
    assert has_ended(f"{boot} {namespace} {number} {int(start_time) + 1}")
    program = "from serve_app.jobs.process_identity import this_process; print(this_process())"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=os.getcwd())
    assert has_ended(other.stdout.strip())
    assert raylet_process({"RAY_RAYLET_PID": str(os.getpid())}) == me
    assert (raylet_process({}), raylet_process({"RAY_RAYLET_PID": "0"})) == (None, None)
    for elsewhere in (f"x {namespace} {number} 1", f"{boot} x {number} 1", "", "a b c", f"{boot} {namespace} x 1"):
        assert not has_ended(elsewhere)
