"""Clients of Node.js against the running service: npm/clients.mjs calls it with each, and this file compares.

The packages are installed once, by the lock file, into a folder of the virtual environment. Without node, npm or the
registry the tests are skipped.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import M3
from tests.contract.conftest import PASSAGES, QUERY, Native, same
from tests.service_process import STARTER, Service

SOURCE = Path(__file__).parent / "npm"
FILES = ("package.json", "package-lock.json")
INSTALL_S, RUN_S = 180, 120


@pytest.fixture(scope="module")
def packages() -> Path:
    """The folder with the installed packages."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not on this machine, so the clients of Node.js were not tried")
    lock = hashlib.sha256(b"".join((SOURCE / name).read_bytes() for name in FILES)).hexdigest()[:16]
    folder = Path(sys.prefix) / "npm-clients" / lock
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copy(SOURCE / name, folder)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip("npm could not install the clients of Node.js in time")
        if done.returncode:
            pytest.skip(f"npm could not install the clients of Node.js: {done.stderr[-300:]}")
        (folder / "complete").touch()
    return folder


@pytest.fixture(scope="module")
def answers(packages: Path, service: Service) -> dict[str, Any]:
    """What each call of clients.mjs gave, by its name."""
    shutil.copy(SOURCE / "clients.mjs", packages)  # node looks for packages beside the file
    run = subprocess.run(
        ["node", "clients.mjs", service.url, STARTER, M3, QUERY, *PASSAGES],
        cwd=packages, capture_output=True, text=True, timeout=RUN_S, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith('{"name"')]
    return {line["name"]: line["got"] for line in lines}


@pytest.mark.parametrize(
    "client", ["openai", "ai-sdk/openai-compatible", "ai-sdk/cohere", "langchain/cohere", "cohere-ai"]
)
def test_passages_have_the_native_vectors(answers: dict[str, Any], native: Native, client: str) -> None:
    assert same(answers[f"{client} passages"], native.vectors(PASSAGES)), answers[f"{client} passages"]


@pytest.mark.parametrize("client", ["openai", "ai-sdk/cohere", "langchain/cohere"])
def test_a_query_has_the_native_vector(answers: dict[str, Any], native: Native, client: str) -> None:
    assert same(answers[f"{client} query"], native.vectors([QUERY], is_query=True))


@pytest.mark.parametrize("client", ["ai-sdk/cohere", "langchain/cohere", "cohere-ai"])
def test_a_ranking_has_the_native_scores(answers: dict[str, Any], native: Native, client: str) -> None:
    scores = native.scores(QUERY, PASSAGES)
    best = np.argsort(-np.array(scores), kind="stable")[:3].tolist()
    assert [index for index, _ in answers[f"{client} rerank"]] == best
    assert [score for _, score in answers[f"{client} rerank"]] == pytest.approx([scores[i] for i in best], abs=1e-5)


def test_models_usage_and_errors_are_read(answers: dict[str, Any], native: Native) -> None:
    assert {STARTER, M3} <= set(answers["openai models"])
    assert answers["ai-sdk/openai-compatible usage"] == len(native.token_ids(QUERY))
    kind, message = answers["openai error"]
    assert kind == "NotFoundError"
    assert "nothing-here" in message
