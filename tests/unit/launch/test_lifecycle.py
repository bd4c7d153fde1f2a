"""A start that fails ends with one message and status 1; no cluster is needed to see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import serve
from ray.serve.schema import ApplicationStatus

from serve_app.deployments import startup_failures
from serve_app.launch import lifecycle, ray_start
from serve_app.launch.config import http_address
from serve_app.launch.lifecycle import run
from serve_app.launch.ports import free_port
from serve_app.launch.ray_start import StartError
from serve_app.launch.signals import StopSignals


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> StopSignals:
    """Signals of a process in which nothing is to be stopped."""
    monkeypatch.setattr(StopSignals, "listen", lambda self: None)
    monkeypatch.setattr(StopSignals, "ignore", lambda self: None)
    return StopSignals()


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_start, "_keep_signals_from_ray", lambda: None)
    monkeypatch.setattr(ray_start, "_set_agent_port", lambda port: None)
    monkeypatch.setattr(ray_start, "canonicalize_bootstrap_address", lambda address: None)


def config(**http: Any) -> dict[str, Any]:
    return {"http_options": {"port": free_port(), **http}, "applications": []}


def test_a_slow_start_of_ray_gives_one_sentence_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], signals: StopSignals
) -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because some of the raylet ...")

    monkeypatch.setattr(ray, "init", init)
    assert run(config(), signals, agent_port=1) == 1
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("Ray did not start in time")
    assert "start again" in line
    assert out == ""


@pytest.mark.parametrize(
    "wrong", [{"proxy_location": "Nowhere"}, {"http_options": {"root_path": 3}}, {"applications": [{"name": 3}]}]
)
def test_a_config_that_serve_refuses_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], signals: StopSignals, wrong: dict[str, Any]
) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    assert run({**config(), **wrong}, signals, agent_port=1) == 1
    first, *rest = capsys.readouterr().err.splitlines()
    assert first == "the config is not one of Ray Serve:"
    assert rest
    assert all(line.startswith(next(iter(wrong))) for line in rest)


@pytest.mark.parametrize("http", [None, {}, {"port": 8123}, {"host": ""}, {"host": "0.0.0.0"}, {"host": "::1"}])
def test_serve_listens_at_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch, http: Any) -> None:
    started: dict[str, Any] = {}

    def start(**options: Any) -> Any:
        started.update(options["http_options"])
        return SimpleNamespace(deploy_apps=lambda schema, **_: None)

    monkeypatch.setattr(lifecycle.serve_api, "serve_start", start)
    monkeypatch.setattr(startup_failures, "clear", lambda: None)
    whole: dict[str, Any] = {"applications": []} | ({} if http is None else {"http_options": http})
    lifecycle._deploy(lifecycle._schema(whole))
    assert (started["host"], started["port"]) == http_address(whole)
    assert (started["host"] == "0.0.0.0") == ((http or {}).get("host") == "0.0.0.0")


@pytest.mark.parametrize(
    ("http", "message"),
    [
        ({"host": "203.0.113.7"}, "cannot listen on 203.0.113.7"),
        ({"host": "no.such.host.invalid"}, "cannot listen on no.such.host.invalid"),
        ({"port": 70_000}, "http_options.port must be from 1 to 65535"),
    ],
)
def test_an_unusable_address_is_not_reported_as_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], signals: StopSignals, http: Any, message: str
) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    assert run(config(**http), signals, agent_port=1) == 1
    assert message in capsys.readouterr().err


def statuses(*following: ApplicationStatus, message: str = "") -> Callable[[], Any]:
    """``serve.status`` that returns one after the other; the last one stays."""
    deployment = SimpleNamespace(status="DEPLOY_FAILED", message=f"tried twice\n{message}")
    said: Iterator[ApplicationStatus] = iter(following)
    now = [following[0]]

    def status() -> Any:
        now[0] = next(said, now[0])
        application = SimpleNamespace(status=now[0], deployments={"Encoder-x": deployment}, message=message)
        return SimpleNamespace(applications={"retrieval": application})

    return status


def test_an_application_that_cannot_start_ends_the_wait_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "_POLL_S", 0)
    failing = statuses(ApplicationStatus.DEPLOYING, ApplicationStatus.DEPLOY_FAILED, message="The actor was killed.")
    monkeypatch.setattr(serve, "status", failing)
    monkeypatch.setattr(startup_failures, "reported", lambda: {"the encoder of 'x'": "no model 'x'"})
    with pytest.raises(StartError, match=r"^the encoder of 'x' cannot start: no model 'x'$"):
        lifecycle._wait_until_running({"retrieval"})
    monkeypatch.setattr(startup_failures, "reported", dict)
    with pytest.raises(StartError, match=r"^the service cannot start: The actor was killed\.$"):
        lifecycle._wait_until_running({"retrieval"})


def test_an_application_that_runs_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "_POLL_S", 0)
    monkeypatch.setattr(serve, "status", statuses(ApplicationStatus.DEPLOYING, ApplicationStatus.RUNNING))
    lifecycle._wait_until_running({"retrieval"})
