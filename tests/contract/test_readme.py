"""Every example of the README is run; what it prints is what the README says."""

from __future__ import annotations

import os
import re
import subprocess

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


@pytest.mark.parametrize("code", PYTHON, ids=[re.findall(r"(?:from|import) (\w+)", code)[0] for code in PYTHON])
def test_a_python_example_prints_what_its_last_line_says(
    service: Service, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    promise = re.search(r"\n# prints: (.+)\n$", code)
    assert promise, "the last line is '# prints: ...'"
    local = code.replace("http://localhost:8000", service.url)
    exec(compile(local, "README.md", "exec"), {})  # here, because some clients take seconds to import
    assert capsys.readouterr().out.strip() == promise[1]


def test_there_is_a_python_example_for_each_client() -> None:
    for client in (
        "openai",
        "cohere",
        "langchain_openai",
        "langchain_cohere",
        "llama_index",
        "haystack",
        "huggingface_hub",
    ):
        assert any(re.search(rf"^from {client}\b|^import {client}\b", code, re.MULTILINE) for code in PYTHON), client


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
