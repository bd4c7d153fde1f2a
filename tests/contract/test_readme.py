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
NUMBER = re.compile(r"(-?\d+\.\d*(?:[eE][-+]?\d+)?)")
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
    differences = differences_of(out, wanted, is_cut="head -c" in command)
    assert differences == []


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
    from serve_app.domain.request_limits import FineTuneLimits, Limits

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


def differences_of(out: str, wanted: str, *, is_cut: bool) -> list[str]:
    """What differs between a command's output and the README, whose digits beyond the fifth depend on the CPU.

    Args:
        out: What the command printed.
        wanted: What the README says.
        is_cut: Whether the command cuts its output after so many bytes, perhaps in the middle of a number.
    """
    texts, numbers = parts_of(out, is_cut=is_cut)
    wanted_texts, wanted_numbers = parts_of(wanted, is_cut=is_cut)
    if is_cut:  # a number of fewer digits lets another one in at the end
        whole = min(len(numbers), len(wanted_numbers))
        if whole < len(wanted_numbers) - 1:
            return [f"{len(numbers)} numbers instead of {len(wanted_numbers)}"]
        texts, numbers, wanted_texts, wanted_numbers = (
            texts[: whole + 1], numbers[:whole], wanted_texts[: whole + 1], wanted_numbers[:whole],
        )  # fmt: skip
        if whole:
            shorter = min(len(texts[-1]), len(wanted_texts[-1]))
            texts[-1], wanted_texts[-1] = texts[-1][:shorter], wanted_texts[-1][:shorter]
    found = [f"{b!r} is {a!r}" for a, b in zip(texts, wanted_texts, strict=False) if a != b]
    found += [f"{b} is {a}" for a, b in zip(numbers, wanted_numbers, strict=False) if a != pytest.approx(b, abs=2e-4)]
    return found + [f"{len(numbers)} numbers, not {len(wanted_numbers)}"] * (len(numbers) != len(wanted_numbers))


def parts_of(text: str, *, is_cut: bool) -> tuple[list[str], list[float]]:
    """The texts around its numbers, one more than there are numbers, and the numbers that are there to their end."""
    parts = NUMBER.split(text.strip())
    texts, numbers = parts[::2], [float(number) for number in parts[1::2]]
    if is_cut and numbers and not texts[-1]:
        return texts[:-1], numbers[:-1]
    return texts, numbers


@pytest.mark.parametrize(
    ("out", "wanted", "is_cut", "differs"),
    [
        ('{"scores":[0.32841,0.79277]}', '{"scores":[0.3284375,0.79278636]}', False, False),
        ('{"scores":[0.3284375,0.69278636]}', '{"scores":[0.3284375,0.79278636]}', False, True),  # the last one
        ('{"scores":[0.3284375]}', '{"scores":[0.3284375,0.79278636]}', False, True),
        ('"index":2,"score":0.5', '"index":1,"score":0.5', False, True),
        ('"score":0.5,"model":"a"', '"score":0.5,"model":"b"', False, True),  # a text behind a number
        ("[0.123456,0.2345", "[0.1234561,0.23", True, False),
        ("[0.123456,0.2,0.", "[0.1234561,0.199", True, False),
        ("[0.123456,0.2,0.", "[0.1234561,0.3,0", True, True),
        ("[0.15", "[0.1,0.2,0.3,0.4", True, True),
        ("[1.5e-05,2.0]", "[0.000015,2.0]", False, False),
        ("[3,-1,-11,", "[3,-1,-12,", True, True),
        ("[[0.1,0.2,", "[0.1,0.2,0.", True, True),
    ],
)
def test_every_whole_number_of_an_example_and_every_text_beside_it_is_compared(
    out: str, wanted: str, is_cut: bool, differs: bool
) -> None:
    assert bool(differences_of(out, wanted, is_cut=is_cut)) == differs
