"""A real service for tests: its own Ray cluster, ports and files, so that it disturbs no other one."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from serve_app.launch.ports import free_port
from serve_app.launch.watchdog import Watchdog, processes_of

ROOT = Path(__file__).parent.parent
STARTER = "multilingual-e5-small"
STARTER_FOLDER = ROOT / "models" / STARTER
_MARK = "RETRIEVAL_TEST_SERVICE"  # differs from service to service, so it tells whose a process is

_LOG_FOLDER = re.compile(r"--log[-_]dir=(/\S+)")


@dataclass(frozen=True)
class Service:
    """A running service.

    Attributes:
        url: Where it answers.
        process: The one that a user would have started.
        log: What it printed.
        environment: For command-line tools that are to reach its cluster.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    environment: dict[str, str]

    def replicas(self, deployment: str) -> list[int]:
        """Process ids of a deployment's replicas on this machine."""
        title = f"ray::ServeReplica:retrieval:{deployment}"
        return [pid for pid, name in processes(self.environment) if name.startswith(title)]

    def logs(self) -> list[Path]:
        """Every log: what was printed, and all files that its Ray session has written."""
        folders = {match[1] for _, command in processes(self.environment) if (match := _LOG_FOLDER.search(command))}
        assert folders, "the cluster is not running"
        return [self.log, *(file for folder in folders for file in Path(folder).rglob("*") if file.is_file())]


@contextmanager
def running(folder: Path, args: dict[str, Any], *, fast: bool = True, **environment: str) -> Iterator[Service]:
    """Starts a service with these application arguments, waits until it is ready, stops it in the end."""
    port = free_port()
    config = folder / "serve_config.yaml"
    application = {"name": "retrieval", "route_prefix": "/", "import_path": "serve_app.app:build", "args": args}
    http = {"host": "127.0.0.1", "port": port}
    config.write_text(yaml.safe_dump({"http_options": http, "applications": [application]}))
    log = folder / "service.log"
    with started(config, log, **(fast_environment() if fast else {}) | environment) as (process, env):
        service = Service(f"http://127.0.0.1:{port}", process, log, env)
        try:
            wait_until_ready(service)
            yield service
        finally:
            stop(service)


@contextmanager
def started(config: Path, log: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """A service that has just been started, and its environment.

    Nothing of it is left in the end, even if this process is killed in between: no process, no port, and not the
    folder of its Ray sessions.
    """
    ray_folder = Path(tempfile.mkdtemp(prefix="retrieval-ray-", dir="/tmp"))  # a socket's path must be short
    env = {**os.environ, **environment, _MARK: secrets.token_hex(16), "RAY_TMPDIR": str(ray_folder)}
    env.pop("RAY_ADDRESS", None)
    env["PYTHONPATH"] = str(ROOT)
    watchdog = Watchdog(f"{_MARK}={env[_MARK]}", [ray_folder])
    try:
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "serve_app", str(config)],
                cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        yield process, env
    finally:
        watchdog.finish()


def wait_until_ready(service: Service, timeout_s: float = 240) -> None:
    """Returns when /readyz answers 200.

    Raises:
        RuntimeError: With the end of the log, when the process ended or the time is over.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and service.process.poll() is None:
        try:
            if httpx.get(f"{service.url}/readyz", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise RuntimeError(f"the service did not become ready:\n{service.log.read_text()[-4000:]}")


def stop(service: Service) -> float:
    """SIGTERM, and SIGKILL for everything it started if that takes over a minute; seconds that it took."""
    began = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    try:
        service.process.wait(60)
    except subprocess.TimeoutExpired:
        for pid, _ in processes(service.environment):
            _kill(pid)
        service.process.wait()
    return time.monotonic() - began


def processes(environment: dict[str, str]) -> list[tuple[int, str]]:
    """Process id and command line of everything a service started: it carries the service's environment.

    Ray's processes are not children of the one that started them, so the process tree does not tell.
    """
    found = []
    for pid in processes_of(f"{_MARK}={environment[_MARK]}", {}):
        with suppress(OSError):
            title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found.append((pid, title))
    return found


def fast_environment() -> dict[str, str]:
    """The variables of configs/serve.env."""
    words = shlex.split((ROOT / "configs" / "serve.env").read_text(), comments=True)
    return dict(word.split("=", 1) for word in words)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
