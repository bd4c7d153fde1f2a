"""Starting and stopping as a user does: by signal, with work in flight, with a model that is not there."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from serve_app.launch.ports import free_port
from tests.service_process import (
    _MARK,
    ROOT,
    STARTER,
    Service,
    fast_environment,
    processes,
    running,
    started,
)


@dataclass(frozen=True)
class Stopped:
    """What came of a signal.

    Attributes:
        twin: What a second copy said that was started meanwhile.
        status: Of the reply to the request that was in flight.
        meanwhile: Statuses of the replies to those that came after the signal.
        took_s: Seconds from the signal to the end.
        red: Lines of Ray's about processes that ended, after the signal.
        before: Processes of the service before the signal.
        left: Those that were there at its end.
    """

    twin: str
    status: int
    meanwhile: set[int]
    took_s: float
    red: list[str]
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
        left = processes(service.environment)
    said = service.log.read_text(errors="replace").partition("stopping:")[2]
    red = [line for line in said.splitlines() if re.search(r"\(raylet\)|Traceback|ERROR|[Ee]xception", line)]
    return Stopped(twin.stderr, statuses[0], meanwhile, took_s, red, before, left)


def serve_app(config: Path) -> subprocess.CompletedProcess[str]:
    """A service that does not start."""
    log = config.with_suffix(".log")
    with started(config, log, **fast_environment(), HF_HUB_OFFLINE="1") as (process, env):
        try:
            status = process.wait(240)
        finally:
            process.kill()
        assert processes(env) == [], "what it started is gone before it is"
    return subprocess.CompletedProcess([], status, "", log.read_text(errors="replace"))


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
    assert outcome.red == []
    assert outcome.status == 200
    assert 503 in outcome.meanwhile
    assert outcome.meanwhile <= {200, 503}
    assert outcome.took_s < 60
    assert outcome.before > 5
    assert outcome.left == []


def test_a_model_that_cannot_start_is_explained_once_and_ends_the_start(tmp_path: Path) -> None:
    config = write_config(tmp_path, free_port(), models_dir=str(tmp_path / "models"), models=[{"name": "a/e5-lost"}])
    outcome = serve_app(config)
    assert outcome.returncode == 1
    (line,) = [line for line in outcome.stderr.splitlines() if "e5-lost" in line]
    assert line.startswith("the encoder of 'a/e5-lost' cannot start: no model 'a/e5-lost'")
    assert f"Put its folder at {tmp_path}/models/a/e5-lost" in line
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize("words", ["", "Started a local Ray instance"], ids=["at once", "with half a cluster"])
def test_a_signal_in_the_middle_of_a_start_leaves_nothing(tmp_path: Path, words: str) -> None:
    config, log = write_config(tmp_path, free_port(), models=[{"name": STARTER}]), tmp_path / "log"
    with started(config, log, **fast_environment()) as (process, env):
        wait_until(lambda: words in log.read_text(errors="replace") and len(processes(env)) > (3 if words else 0))
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) in ({0} if words else {0, -signal.SIGTERM})
        assert processes(env) == []
    assert "Traceback" not in log.read_text(errors="replace")


def test_a_test_run_that_is_killed_leaves_no_cluster_and_no_folder(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.service_process import *\n"
        "from tests.service_process import _MARK\n"
        "with started(Path(sys.argv[1]), Path(sys.argv[2]), **fast_environment()) as (process, env):\n"
        "    print(env[_MARK], env['RAY_TMPDIR'], flush=True); process.wait()"
    )
    config, log = write_config(tmp_path, free_port(), models=[{"name": STARTER}]), tmp_path / "log"
    run = subprocess.Popen([sys.executable, "-c", program, config, log], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    mark, ray_folder = run.stdout.readline().split()
    environment = {_MARK: mark}
    wait_until(lambda: log.exists() and "Started a local Ray instance" in log.read_text(errors="replace"))
    variables = b"".join(Path(f"/proc/{pid}/environ").read_bytes() for pid, _ in processes(environment))
    own = {Path(found.decode()) for found in re.findall(rb"HAPROXY_CONFIG_FILE_LOC=([^\0]+)/haproxy.cfg", variables)}
    run.kill()
    run.wait()
    wait_until(lambda: not processes(environment) and not Path(ray_folder).exists(), 60)
    assert len(own) == 1
    wait_until(lambda: not any(folder.exists() for folder in own), 60)


def test_a_port_that_another_program_has_is_a_complaint_and_not_shared(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as HAProxy does
        other.bind(("127.0.0.1", port := free_port()))
        other.listen()
        outcome = serve_app(write_config(tmp_path, port))
    assert outcome.returncode == 1
    assert f"port {port} is used by another program" in outcome.stderr
    assert "Started a local Ray instance" not in outcome.stderr, "no cluster for nothing"


def write_config(folder: Path, port: int, **args: Any) -> Path:
    """A config with these arguments of the application."""
    config = folder / "start.yaml"
    args = {"models_dir": str(ROOT / "models"), "training": {"jobs_dir": str(folder / "jobs")}, **args}
    application = {"name": "retrieval", "route_prefix": "/", "import_path": "serve_app.app:build", "args": args}
    http = {"host": "127.0.0.1", "port": port}
    config.write_text(yaml.safe_dump({"http_options": http, "applications": [application]}))
    return config


def wait_until(is_so: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def wait_for(log: Path, words: str, timeout_s: float = 150) -> str:
    """The log once it holds these words."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        if words in text:
            return text
        time.sleep(0.2)
    pytest.fail(f"{words!r} did not appear in the log:\n{log.read_text()[-3000:]}")
