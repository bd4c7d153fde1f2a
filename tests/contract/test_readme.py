"""Every example of the README is run; what it prints is what the README says."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.service import ROOT, Service

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONSOLE = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
EXAMPLES = [part.split("\n", 1) for block in CONSOLE for part in re.split(r"^\$ ", block, flags=re.MULTILINE) if part]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
LEARNT = {"JOB": r'"(?:job_id|id)":"([0-9a-f-]{36})"', "FILE": r'"id":"(file-[^"]+)"'}
TIME = re.compile(r'(?<="created_at":)\d+')
NUMBER = re.compile(r"-?\d+\.\d+")
MODELS = re.compile(r'(these are|these models do): [^"]*?(?=, and|")')  # more are served here than the config names


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    """What examples learn from those before them: the ids of the file and the job that they have made."""
    return {}


@pytest.mark.parametrize(("command", "printed"), EXAMPLES, ids=[e[0][:60] for e in EXAMPLES])
def test_a_command_prints_what_the_readme_says(
    service: Service, variables: dict[str, str], command: str, printed: str
) -> None:
    local = command.replace("localhost:8000", service.url.removeprefix("http://"))
    bash = ["bash", "-c", local]
    env = {**os.environ, **variables}
    out = subprocess.run(bash, capture_output=True, text=True, timeout=60, check=True, env=env).stdout
    for name, pattern in LEARNT.items():
        if found := re.search(pattern, out):
            variables[name] = found[1]
    out, wanted = (UUID.sub("ID", TIME.sub("TIME", MODELS.sub(r"\1: ...", text.strip()))) for text in (out, printed))
    assert skeleton(out) == skeleton(wanted)
    # the last number may be cut; the digits beyond the fifth depend on the CPU
    for got, expected in list(zip(NUMBER.findall(out), NUMBER.findall(wanted), strict=False))[:-1]:
        assert float(got) == pytest.approx(float(expected), abs=2e-4)


def test_the_python_example_finds_the_right_passage(service: Service) -> None:
    (code,) = PYTHON
    code = code.replace("http://localhost:8000", service.url)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert out == "logrotate rotates log files.\n"


def test_the_readme_shows_every_route_of_the_service() -> None:
    from serve_app.api.application import create_app
    from serve_app.domain.limits import FineTuneLimits, Limits

    paths = create_app(None, None, Limits(), FineTuneLimits()).openapi()["paths"]  # type: ignore[arg-type]
    shown = " ".join(command for command, _ in EXAMPLES)
    for example, template in (
        ("$JOB", "{job_id}"),
        ("$FILE", "{file_id}"),
        ("/v1/models/bge-m3-small", "/v1/models/{id}"),
        ("/models/bge-m3-small", "/models/{name}"),
        ('?limit=1"', ""),
    ):
        shown = shown.replace(example, template)
    assert len(paths) >= 20
    assert [path for path in paths if f"localhost:8000{path} " not in f"{shown} "] == []


def skeleton(text: str) -> str:
    """The text up to its first number of many, so that digits do not matter."""
    return re.split(r"-?\d+\.\d", text.strip(), maxsplit=1)[0]
