"""Starting and stopping as a user does: by signal, with work in flight, with a model that is not there."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from tests.service import (
    ROOT,
    STARTER,
    Service,
    fast_environment,
    free_port,
    marked,
    processes,
    running,
)


@dataclass(frozen=True)
class Stopped:
    """What came of a signal.

    Attributes:
        twin: What a second copy said that was started meanwhile.
        status: Of the reply to the request that was in flight.
        meanwhile: Statuses of the replies to those that came after the signal.
        took_s: Seconds from the signal to the end.
        before: Processes of the service before the signal.
        left: Those that were there two seconds after its end.
    """

    twin: str
    status: int
    meanwhile: set[int]
    took_s: float
    before: int
    left: list[tuple[int, str]]


def start_and_stop(folder: Path, name: str) -> Stopped:
    """Starts a service, asks for a long list and sends the signal while it is computed."""
    statuses: list[int] = []
    args = {"models_dir": str(ROOT / "models"), "models": [{"name": STARTER}], "training": {"jobs_dir": str(folder)}}
    with running(folder, args) as service:
        assert "The service is ready" in wait_for(service.log, "stop       Ctrl-C")
        before = len(processes(service.environment))
        twin = serve_app(folder / "serve_config.yaml")

        def ask() -> None:
            body = {"items": [f"text number {i} of a long list" for i in range(400)]}
            statuses.append(httpx.post(f"{service.url}/vectorize-batch", json=body, timeout=90).status_code)

        client = threading.Thread(target=ask)
        client.start()
        time.sleep(1.0)
        began = time.monotonic()
        service.process.send_signal(getattr(signal, name))
        meanwhile = statuses_until_the_end(service)
        took_s = time.monotonic() - began
        print(f"{name}: everything stopped after {took_s:.0f} s")
        client.join()
    time.sleep(2)
    return Stopped(twin.stderr, statuses[0], meanwhile, took_s, before, processes(service.environment))


def serve_app(config: Path) -> subprocess.CompletedProcess[str]:
    """A service that does not start."""
    return subprocess.run(
        [sys.executable, "-m", "serve_app", str(config)], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={**os.environ, **fast_environment(), **marked(), "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip


def statuses_until_the_end(service: Service) -> set[int]:
    """Asks again and again, each time on a connection of its own; one that is refused or closed has no status."""
    seen = set()
    until = time.monotonic() + 90
    while service.process.poll() is None and time.monotonic() < until:
        with suppress(httpx.TransportError):
            seen.add(httpx.post(f"{service.url}/vectorize", json={"text": "late"}, timeout=10).status_code)
        time.sleep(0.05)
    return seen


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.long)])
def test_a_signal_answers_what_is_in_flight_and_leaves_no_process(tmp_path: Path, name: str) -> None:
    outcome = start_and_stop(tmp_path, name)
    assert "is used by another program" in outcome.twin
    assert outcome.status == 200
    assert 503 in outcome.meanwhile
    assert outcome.meanwhile <= {200, 503}
    assert outcome.took_s < 60
    assert outcome.before > 5
    assert outcome.left == []


def test_a_model_that_is_nowhere_is_explained_on_the_terminal(tmp_path: Path) -> None:
    config = tmp_path / "serve_config.yaml"
    args = {"models_dir": str(tmp_path / "models"), "models": [{"name": "someone/e5-lost"}]}
    application = {"name": "retrieval", "route_prefix": "/", "import_path": "serve_app.app:build", "args": args}
    http = {"host": "127.0.0.1", "port": free_port()}
    config.write_text(yaml.safe_dump({"http_options": http, "applications": [application]}))
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "serve_app", str(config)], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT,
            env={**os.environ, **fast_environment(), **marked(), "PYTHONPATH": str(ROOT),
                 "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
    try:
        text = wait_for(log, "can not start")
        assert "no model 'someone/e5-lost'" in text
        assert f"Put its folder at {tmp_path}/models/someone/e5-lost" in text
    finally:
        process.terminate()
        process.wait(90)


def test_a_port_that_another_program_has_is_a_complaint_and_not_shared(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as HAProxy does
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        config = tmp_path / "serve_config.yaml"
        config.write_text(yaml.safe_dump({"http_options": {"host": "127.0.0.1", "port": port}, "applications": []}))
        outcome = serve_app(config)
    assert outcome.returncode == 1
    assert f"port {port} is used by another program" in outcome.stderr
    assert "Started a local Ray instance" not in outcome.stderr + outcome.stdout, "no cluster for nothing"


def wait_for(log: Path, words: str, timeout_s: float = 150) -> str:
    """The log once it holds these words."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        if words in text:
            return text
        time.sleep(0.2)
    pytest.fail(f"{words!r} did not appear in the log:\n{log.read_text()[-3000:]}")
