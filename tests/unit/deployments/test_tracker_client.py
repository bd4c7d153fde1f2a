"""Asking the tracker: it may die under a question, and its refusals must arrive as what they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from serve_app.api.jobs_protocol import ParsedFineTune
from serve_app.deployments import tracker_client as module
from serve_app.deployments.tracker_client import TrackerClient
from serve_app.domain.errors import ConflictError, JobNotFoundError, StorageError, UnavailableError
from serve_app.jobs.tracker import TrackerConfig
from serve_app.jobs.training_pairs import Example
from serve_app.jobs.training_spec import TrainingKind
from serve_app.settings.model_settings import ModelSettings
from serve_app.settings.training_settings import TrainingSettings


class FakeTrackers:
    """Connects to one tracker after the other; each answers ``get`` as told, then as the last one told."""

    def __init__(self, *answers: Callable[[], Any]) -> None:
        self.answers = list(answers)
        self.configs: list[TrackerConfig] = []
        self.replaced: list[bool] = []
        self.failures: list[Exception] = []

    async def connect(self, config: TrackerConfig, *, replaces: bool = True) -> Any:
        self.configs.append(config)
        self.replaced.append(replaces)
        if self.failures:
            raise self.failures.pop(0)
        return SimpleNamespace(get=SimpleNamespace(remote=self._get))

    async def _get(self, job_id: str) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer()


def raising(error: Exception) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


def remote(error: Exception) -> Exception:
    """An error as it arrives from an actor."""
    wrapped = RayTaskError("get", "Traceback ...", error)
    return wrapped.as_instanceof_cause()


def jobs_of(trackers: FakeTrackers) -> TrackerClient:
    settings = TrainingSettings(jobs_dir=Path("/jobs"), max_concurrent_jobs=3, env={"COLOUR": "red"})
    models, aliases = [ModelSettings(name="e5", aliases=("e5-alias",))], {"e5-alias": "e5"}
    return TrackerClient(settings, models, Path("/models"), aliases=aliases, connect=trackers.connect)


async def test_the_tracker_is_told_the_settings_and_connected_to_once() -> None:
    trackers = FakeTrackers(lambda: "record")
    jobs = jobs_of(trackers)
    assert [await jobs.get("a"), await jobs.get("a")] == ["record", "record"]
    (config,) = trackers.configs
    assert (config.jobs_dir, config.policy.max_concurrent_jobs, config.env) == (Path("/jobs"), 3, {"COLOUR": "red"})


async def test_no_result_can_have_the_name_of_an_alias() -> None:
    order = ParsedFineTune("e5-alias", TrainingKind.FULL, [Example("q", ("p",))])
    with pytest.raises(ConflictError, match="'e5-alias' is an alias of the model 'e5'"):
        await jobs_of(FakeTrackers(lambda: "record")).submit(order)


async def test_a_tracker_that_died_under_a_question_is_asked_again() -> None:
    trackers = FakeTrackers(raising(ActorDiedError()), lambda: "record")
    assert await jobs_of(trackers).get("a") == "record"
    assert len(trackers.configs) == 2


async def test_who_starts_replaces_a_tracker_of_another_configuration_and_who_asks_does_not() -> None:
    trackers = FakeTrackers(raising(ActorDiedError()), lambda: "record")
    jobs = jobs_of(trackers)
    await jobs.start()
    assert await jobs.get("a") == "record"
    assert trackers.replaced == [True, False]


async def test_a_tracker_that_dies_again_and_again_is_unavailable() -> None:
    trackers = FakeTrackers(raising(ActorDiedError()))
    with pytest.raises(UnavailableError, match="does not answer"):
        await jobs_of(trackers).get("a")


async def test_a_refusal_arrives_as_what_it_is_without_the_trace_of_another_process() -> None:
    trackers = FakeTrackers(raising(remote(JobNotFoundError("Job not found"))))
    with pytest.raises(JobNotFoundError) as refusal:
        await jobs_of(trackers).get("a")
    assert type(refusal.value) is JobNotFoundError
    assert refusal.value.message == "Job not found"


async def test_an_unexpected_failure_of_the_tracker_is_no_refusal() -> None:
    trackers = FakeTrackers(raising(remote(KeyError("bug"))))
    with pytest.raises(RayTaskError):
        await jobs_of(trackers).get("a")


async def test_a_tracker_that_is_silent_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CALL_TIMEOUT_S", 0.01)
    trackers = FakeTrackers(lambda: "never")

    async def silence(_: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(trackers, "_get", silence)
    with pytest.raises(UnavailableError, match="does not answer"):
        await jobs_of(trackers).get("a")


async def test_the_start_goes_on_until_there_is_a_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.0)
    trackers = FakeTrackers(lambda: "record")
    trackers.failures = [StorageError("full"), RuntimeError("no cluster")]
    jobs = jobs_of(trackers)
    await jobs.start()
    assert len(trackers.configs) == 3
    assert await jobs.get("a") == "record"
    assert len(trackers.configs) == 3
