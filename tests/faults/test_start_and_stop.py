"""Starting and stopping as a user does: by signal, with work in flight, with a model that is not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import yaml

from tests.service import (
    ROOT,
    STARTER,
    fast_environment,
    free_port,
    private_haproxy,
    processes,
    running,
)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_answers_what_is_in_flight_and_leaves_no_process(tmp_path: Path, name: str) -> None:
    statuses: list[int] = []
    args = {"models_dir": str(ROOT / "models"), "models": [{"name": STARTER}]}
    with running(tmp_path, args) as service:
        assert "The service is ready" in wait_for(service.log, "stop       Ctrl-C")
        assert len(processes(service.environment)) > 5

        def ask() -> None:
            body = {"items": [f"text number {i} of a long list" for i in range(400)]}
            statuses.append(httpx.post(f"{service.url}/vectorize-batch", json=body, timeout=90).status_code)

        client = threading.Thread(target=ask)
        client.start()
        time.sleep(1.0)
        began = time.monotonic()
        service.process.send_signal(getattr(signal, name))
        service.process.wait(90)
        print(f"{name}: everything stopped after {time.monotonic() - began:.0f} s")
        client.join()
    assert statuses == [200]
    time.sleep(2)
    assert processes(service.environment) == []


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
            env={**os.environ, **fast_environment(), **private_haproxy(tmp_path), "PYTHONPATH": str(ROOT),
                 "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
    try:
        text = wait_for(log, "can not start")
        assert "no model 'someone/e5-lost'" in text
        assert f"Put its folder at {tmp_path}/models/someone/e5-lost" in text
    finally:
        process.terminate()
        process.wait(90)


def wait_for(log: Path, words: str, timeout_s: float = 90) -> str:
    """The log once it holds these words."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        if words in text:
            return text
        time.sleep(0.2)
    pytest.fail(f"{words!r} did not appear in the log:\n{log.read_text()[-3000:]}")
