"""A redeploy under load: new replicas are there before the old ones go, and each node keeps its half of them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve_app.launch.isolated_ray_env import isolated_ray_env
from serve_app.launch.ports import free_port, reserve_block
from tests.conftest import E5_TINY
from tests.faults.steady_load import VECTORIZE, Question, steady_load
from tests.service_process import ROOT, fast_environment
from tests.tiny_models import build_e5_tiny
from tests.two_nodes import NODES

ENCODER = f"Encoder-{E5_TINY}"
ASK = Question("/vectorize", VECTORIZE.body, lambda reply: bool(reply["vector"]))


@dataclass(frozen=True)
class TwoNodes:
    """A cluster of two nodes on this machine.

    Attributes:
        folder: Of models and configs.
        port: Of the service.
        process: Deploys the config whose path it reads, and answers where the replicas are.
    """

    folder: Path
    port: int
    process: subprocess.Popen[str]

    def deploy(self, config: Path) -> Any:
        """What ``tests.two_nodes`` says, when nothing of the version before is left."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{config}\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        """What the last deployment came to."""
        assert self.process.stdout is not None
        lines = (line for line in self.process.stdout if line.startswith("{"))  # Ray prints there, too
        line = next(lines, None)
        assert line is not None, (self.folder / "log").read_text()[-4000:]
        return json.loads(line)


def config_of(folder: Path, port: int, **batching: int) -> Path:
    """One replica of the encoder, as most services have, and two of the ingress."""
    args: dict[str, Any] = {
        "models_dir": str(folder / "models"),
        "models": [{"name": E5_TINY, "num_cpus": 0.5, "threads": 1, "batching": batching}],
        "ingress": {"num_replicas": 2, "num_cpus": 0.5},
        "training": {"jobs_dir": str(folder / "jobs"), "cpus_per_worker": 64},
    }
    application = {"name": "retrieval", "route_prefix": "/", "import_path": "serve_app.app:build", "args": args}
    file = folder / f"{len(list(folder.glob('*.yaml')))}.yaml"
    file.write_text(
        yaml.safe_dump({"http_options": {"host": "127.0.0.1", "port": port}, "applications": [application]})
    )
    return file


@pytest.fixture
def two_nodes(tmp_path: Path) -> Iterator[TwoNodes]:
    build_e5_tiny(tmp_path / "models" / E5_TINY)
    places, port = Path(tempfile.mkdtemp(prefix="nodes-", dir="/tmp")), free_port()
    environment = os.environ | fast_environment() | isolated_ray_env(places, reserve_block())
    environment |= {"PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(places)}  # no other cluster is found, nor finds this one
    environment.pop("RAY_ADDRESS", None)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.two_nodes", str(config_of(tmp_path, port))],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        try:
            yield TwoNodes(tmp_path, port, process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(60)
            finally:
                process.kill()
                shutil.rmtree(places, ignore_errors=True)


async def test_a_redeploy_fails_no_request_starts_new_replicas_first_and_leaves_each_node_its_half(
    two_nodes: TwoNodes,
) -> None:
    spread = {ENCODER: [1], "Ingress": [1] * NODES}
    assert two_nodes.answer()["nodes"] == spread
    came_to: dict[str, Any] = {}

    async def redeploy() -> None:
        config = config_of(two_nodes.folder, two_nodes.port, max_batch_tokens=400)
        came_to.update(await asyncio.to_thread(two_nodes.deploy, config))

    outcome = await steady_load(
        f"http://127.0.0.1:{two_nodes.port}", clients=4, seconds=10, midway=redeploy, questions=[ASK],
        pause_s=0.05,  # the new replicas start while the load lasts, and need the processor, too
    )  # fmt: skip
    print(f"{outcome.answered} answered, the longest wait was {outcome.longest_s:.1f} s")
    assert came_to == {"nodes": spread, "fewest": {ENCODER: 1, "Ingress": 2}}
    assert outcome.failures == []
    assert outcome.answered[ASK.path] > 100
