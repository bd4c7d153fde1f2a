"""Starts and stops this service as a user would, in a Ray cluster of its own, and reads its CPU and metrics."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from benchmarks.children import BenchmarkError, die_with_parent, environment
from benchmarks.cpu import ServiceCpu, processes_of
from serve_app.launch.isolated_ray_env import isolated_ray_env
from serve_app.launch.ports import reserve_block

_START_S = 240.0
_STOP_S = 15.0
_FORWARDS = "ray_retrieval_forward_seconds_count{"


class Service:
    """``serve run`` with the repository's own configuration, on a free port."""

    def __init__(self, root: Path) -> None:
        """Starts it and waits until a forward succeeds.

        Args:
            root: The repository: its ``serve_config.yaml`` and ``configs/serve.env`` are used.

        Raises:
            BenchmarkError: It did not get ready.
        """
        self._scratch = Path(tempfile.mkdtemp(prefix="bench-"))
        ports = self._ports = reserve_block()
        self.port = ports.take()
        config = yaml.safe_load((root / "serve_config.yaml").read_text())
        config["http_options"] |= {"host": "127.0.0.1", "port": self.port}
        (self._scratch / "config.yaml").write_text(yaml.safe_dump(config))
        self._log = self._scratch / "log"
        began = time.monotonic()
        self._process = subprocess.Popen(
            [Path(sys.executable).parent / "serve", "run", "--address", "local", self._scratch / "config.yaml"],
            cwd=root,
            env=environment(
                product_environment(root)
                | isolated_ray_env(self._scratch / "haproxy", ports)
                | {"RAY_TMPDIR": str(self._scratch)}
            ),
            stdout=self._log.open("wb"),
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,
            start_new_session=True,  # the session's number marks all its processes
        )
        self.cpu = ServiceCpu(self._process.pid)
        try:
            self.health = self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        self.ready_at = time.monotonic()
        self.started_s = self.ready_at - began

    def forwards(self) -> int:
        """Micro-batches so far. Ray publishes its metrics every ten seconds: wait for so long before.

        Only the number is used: the sums of Ray's histograms are guessed from the middles of the buckets.
        """
        targets = json.loads((self._scratch / "ray" / "prom_metrics_service_discovery.json").read_text())
        count = 0.0
        for target in (t for group in targets for t in group["targets"]):
            try:
                lines = _get(f"http://{target}/metrics").decode().splitlines()
            except OSError:
                continue
            count += sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(_FORWARDS))
        return round(count)

    def stop(self) -> None:
        """Ends every process of the cluster, gently first, and removes its files."""
        if self._process.poll() is None:
            self._process.terminate()
        deadline = time.monotonic() + _STOP_S
        while self._alive() and time.monotonic() < deadline:
            time.sleep(0.2)
        for pid in self._alive():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
        self._ports.release()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _alive(self) -> list[int]:
        self._process.poll()
        return [pid for pid, _ in processes_of(self._process.pid)]

    def _wait_until_ready(self) -> dict[str, Any]:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                _get(f"http://127.0.0.1:{self.port}/readyz")
                health: dict[str, Any] = json.loads(_get(f"http://127.0.0.1:{self.port}/health"))
            except OSError:
                time.sleep(0.2)
            else:
                return health
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
        raise BenchmarkError(f"the service did not get ready:\n{tail}")


def product_environment(root: Path) -> dict[str, str]:
    """What ``configs/serve.env`` says, read as a shell would."""
    words = shlex.split((root / "configs" / "serve.env").read_text(), comments=True)
    return dict(word.split("=", 1) for word in words)


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return bytes(reply.read())
    except urllib.error.HTTPError as error:
        raise OSError(f"{url}: status {error.code}") from None
