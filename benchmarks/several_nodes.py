"""What clients notice of a redeploy and of the death of a machine, on several machines simulated on this one.

Each machine is a network namespace with an address of its own: one head without replicas, and workers. Needs Linux,
root and the ``ip`` command::

    python -m benchmarks.several_nodes --models-dir models

Writes ``results/DATE-CPU-several-nodes.json``. The machines share the CPUs of this one, so a model that loads slows
what the others compute, more than on real machines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx

from benchmarks.machine import describe_machine, results_file, today, versions

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
BRIDGE, NET, NAMESPACE = "retrieval-br", "10.87.0", "retrieval-node"
HEAD, WORKERS, CPUS = 1, (2, 3), 4
MODEL = "multilingual-e5-small"
SURGE: Mapping[str, Any] = {}
NO_SURGE: Mapping[str, Any] = {"max_surge_percent": 0, "max_replicas_per_node": None}


def main() -> None:
    """Measures everything once."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.several_nodes", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=ROOT / "models", help=f"has {MODEL}")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    asked = parser.parse_args()
    saved = {"date": today(), "machine": describe_machine(), "versions": versions(), "model": MODEL}
    file, rows = results_file(asked.out, saved, "several-nodes"), list[dict[str, Any]]()

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)
        file.write_text(json.dumps(saved | {"rows": rows}, indent=1) + "\n")

    with tempfile.TemporaryDirectory(prefix="nodes-", dir="/tmp", ignore_cleanup_errors=True) as name:
        asyncio.run(_measure(Cluster(Path(name), asked.models_dir.resolve()), keep))
    print(f"written: {file}")


class Cluster:
    """One head and some workers."""

    def __init__(self, folder: Path, models_dir: Path) -> None:
        self._folder = folder
        self._models_dir = models_dir
        self._written = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Starts Ray on all nodes, and ends them with everything on them."""
        _ip("link", "add", BRIDGE, "type", "bridge")
        try:
            _ip("addr", "add", f"{NET}.254/24", "dev", BRIDGE)
            _ip("link", "set", BRIDGE, "up")
            for node in (HEAD, *WORKERS):
                _connect(node)
                self.start(node)
            yield
        finally:
            for node in (HEAD, *WORKERS):
                self.kill(node)
                subprocess.run(["ip", "netns", "del", f"{NAMESPACE}{node}"])
            _ip("link", "del", BRIDGE)

    def start(self, node: int) -> None:
        """Starts Ray on a node."""
        files = self._folder / f"node{node}"
        shutil.rmtree(files, ignore_errors=True)
        files.mkdir()
        role = ["--address", f"{_address(HEAD)}:6379", "--num-cpus", str(CPUS)]
        if node == HEAD:
            role = ["--head", "--port", "6379", "--num-cpus", "0", "--dashboard-host", "0.0.0.0"]  # in a namespace
            role += ["--temp-dir", str(self._folder / "ray")]
        command = ["ip", "netns", "exec", f"{NAMESPACE}{node}", str(BIN / "ray"), "start", *role]
        subprocess.run(
            [*command, "--node-ip-address", _address(node), "--disable-usage-stats"],
            env=_environment(files), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self, node: int) -> None:
        """Everything on a node dies at once."""
        found = subprocess.run(["ip", "netns", "pids", f"{NAMESPACE}{node}"], capture_output=True, text=True)
        for pid in found.stdout.split():
            with_signal = subprocess.run(["kill", "-9", pid], stderr=subprocess.DEVNULL)
            assert with_signal.returncode in (0, 1)

    def deploy(self, encoders: int, rollout: Mapping[str, Any], batch_tokens: int) -> None:
        """Gives Serve a config; does not wait for what comes of it."""
        self._written += 1
        args = {
            "models_dir": str(self._models_dir),
            "models": [
                {"name": MODEL, "num_replicas": encoders, "num_cpus": 1, "threads": 1, **rollout}
                | {"batching": {"max_batch_tokens": batch_tokens}}
            ],
            "ingress": {"num_replicas": 2, "num_cpus": 0.5, **rollout},
            "training": {"jobs_dir": str(self._folder / "jobs"), "cpus_per_worker": 64},
        }
        application = {"name": "retrieval", "route_prefix": "/", "import_path": "serve_app.app:build", "args": args}
        config = {"proxy_location": "EveryNode", "http_options": {"host": "0.0.0.0", "port": 8000}}
        httpx.put(f"{_dashboard()}/api/serve/applications/", json=config | {"applications": [application]}, timeout=60)

    def replicas(self) -> dict[str, list[tuple[str, str]]]:
        """Node and id of every replica that runs or stops, by deployment."""
        found = httpx.get(f"{_dashboard()}/api/serve/applications/", timeout=20).json()["applications"]
        return {
            name: [(replica["node_ip"], replica["replica_id"]) for replica in deployment["replicas"]]
            for application in found.values()
            for name, deployment in application["deployments"].items()
        }

    def nodes(self) -> dict[str, Any]:
        """Where the replicas are."""
        return {"nodes": {name: sorted(node for node, _ in found) for name, found in self.replicas().items()}}

    def settled(self, encoders: int, old: Sequence[str] = ()) -> bool:
        """Whether all replicas run and none of the old ones is left."""
        found = httpx.get(f"{_dashboard()}/api/serve/applications/", timeout=20).json()["applications"]
        if not found or any(application["status"] != "RUNNING" for application in found.values()):
            return False
        ids = [id for replicas in self.replicas().values() for _, id in replicas]
        return len(ids) == encoders + 2 and not set(ids) & set(old)


async def _measure(cluster: Cluster, keep: Callable[[dict[str, Any]], None]) -> None:
    tokens = 384
    with cluster.running():
        for encoders in (1, 2):
            cluster.deploy(encoders, SURGE, tokens)
            await _until(lambda n=encoders: cluster.settled(n) and _ready())
            for name, rollout in (("old replicas stop first", NO_SURGE), ("new replicas start first", SURGE)):
                tokens += 1
                old = [id for replicas in cluster.replicas().values() for _, id in replicas]
                row = await _load(
                    f"redeploy, {encoders} encoder replica{'s' * (encoders > 1)}, {name}",
                    lambda n=encoders, r=rollout, t=tokens: cluster.deploy(n, r, t),
                    lambda n=encoders, o=old: cluster.settled(n, o),
                    WORKERS,
                )
                keep(row | cluster.nodes())
        victim, survivor = WORKERS[1], WORKERS[0]
        row = await _load("death of one of two workers", lambda: cluster.kill(victim), lambda: True, [survivor], 30)
        began = time.monotonic()
        cluster.start(victim)
        await _until(lambda: cluster.settled(2))
        keep(row | cluster.nodes() | {"complete_s_after_its_return": round(time.monotonic() - began, 1)})
        keep(await _load("death of the head", lambda: cluster.kill(HEAD), lambda: True, WORKERS, 75))


async def _load(
    name: str, event: Callable[[], None], done: Callable[[], bool], nodes: Sequence[int], least_s: float = 10
) -> dict[str, Any]:
    """What two clients of each node saw, from three seconds before the event until it is over."""
    statuses, waits, failed_at = list[str](), list[float](), list[float]()
    stop, began = asyncio.Event(), time.monotonic()

    async def ask(node: int, client: aiohttp.ClientSession) -> None:
        while not stop.is_set():
            asked_at = time.monotonic()
            try:
                async with client.post(f"http://{_address(node)}:8000/vectorize", json={"text": "who asks?"}) as reply:
                    await reply.read()
                    outcome = str(reply.status)
            except (aiohttp.ClientError, TimeoutError) as error:
                outcome = type(error).__name__
            statuses.append(outcome)
            waits.append(time.monotonic() - asked_at)
            if outcome != "200":
                failed_at.append(time.monotonic() - began - 3)
                await asyncio.sleep(0.1)

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as client:
        loops = [asyncio.create_task(ask(node, client)) for node in nodes for _ in range(2)]
        await asyncio.sleep(3)
        happened = time.monotonic()
        await asyncio.to_thread(event)
        await _until(done)
        took = time.monotonic() - happened
        await asyncio.sleep(max(3.0, least_s - took))
        stop.set()
        await asyncio.gather(*loops)
    failed = [outcome for outcome in statuses if outcome != "200"]
    return {
        "event": name,
        "requests": len(statuses),
        "failed": len(failed),
        "failures": {outcome: failed.count(outcome) for outcome in sorted(set(failed))},
        "first_and_last_failure_s": [round(failed_at[0], 1), round(failed_at[-1], 1)] if failed_at else None,
        "longest_wait_s": round(max(waits), 2),
        "median_wait_s": round(sorted(waits)[len(waits) // 2], 3),
        "took_s": round(took, 1),
    }


async def _until(done: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if await asyncio.to_thread(done):
                return
        except (httpx.HTTPError, KeyError, ValueError):
            pass
        await asyncio.sleep(0.5)
    raise TimeoutError("the cluster did not get there")


def _ready() -> bool:
    return all(httpx.get(f"http://{_address(node)}:8000/readyz", timeout=10).status_code == 200 for node in WORKERS)


def _address(node: int) -> str:
    return f"{NET}.{10 + node}"


def _dashboard() -> str:
    return f"http://{_address(HEAD)}:8265"


def _environment(files: Path) -> dict[str, str]:
    words = shlex.split((ROOT / "configs/serve.env").read_text(), comments=True)
    paths = {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(files / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(files / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(files / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(files),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(files / "server-state"),
    }
    fixed = {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    return os.environ | dict(word.split("=", 1) for word in words) | paths | fixed


def _connect(node: int) -> None:
    name, inside, outside = f"{NAMESPACE}{node}", f"rvi{node}", f"rvo{node}"
    _ip("netns", "add", name)
    _ip("link", "add", outside, "type", "veth", "peer", "name", inside)
    _ip("link", "set", inside, "netns", name)
    _ip("link", "set", outside, "master", BRIDGE, "up")
    address = ["addr", "add", f"{_address(node)}/24", "dev", inside]
    for command in (address, ["link", "set", inside, "up"], ["link", "set", "lo", "up"]):
        subprocess.run(["ip", "netns", "exec", name, "ip", *command], check=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


if __name__ == "__main__":
    main()
