"""Every example of the README and of ``docs/`` is run; what it prints is what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.documentation import Block, Command, blocks, commands
from tests.service_process import ROOT, Service

COMMANDS = list({(command.command, command.printed): command for command in commands()}.values())  # each one once
PYTHON = list(blocks("python"))
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
LEARNT = {"JOB": r'"(?:job_id|id)":"([0-9a-f-]{36})"', "FILE": r'"id":"(file-[^"]+)"'}
TIME = re.compile(r'(?<="created_at":)\d+')
NUMBER = re.compile(r"(-?\d+\.\d*(?:[eE][-+]?\d+)?)")
MODELS = re.compile(r'(these are|models that do): [^"]*?(?=, and|")')  # more are served here than the config names
PROGRAM = re.compile(r"^\.venv/bin/python\b")
_SECONDS = 60
_SECONDS_OF_LONG_ONES = 900  # a fine-tune on two busy cores


@pytest.fixture(scope="module")
def variables() -> defaultdict[str, dict[str, str]]:
    """What the examples of a page learn from those before them: the ids of the file and the job that they have made."""
    return defaultdict(dict)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run: files that they write stay out of the project."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def as_parameter(command: Command) -> object:
    marks = [pytest.mark.long, pytest.mark.timeout(_SECONDS_OF_LONG_ONES + 60)] if command.is_long else []
    return pytest.param(command, marks=marks, id=f"{command.page}: {command.command[:60]}")


@pytest.mark.parametrize("example", [as_parameter(command) for command in COMMANDS])
def test_a_command_prints_what_its_page_says(
    service: Service, variables: dict[str, dict[str, str]], folder: Path, example: Command
) -> None:
    local = PROGRAM.sub(sys.executable, example.command).replace("localhost:8000", service.url.removeprefix("http://"))
    env = {**os.environ, "PYTHONPATH": str(ROOT), **variables[example.page]}
    seconds = _SECONDS_OF_LONG_ONES if example.is_long else _SECONDS
    done = subprocess.run(
        ["bash", "-c", local], capture_output=True, text=True, timeout=seconds, check=True, env=env, cwd=folder
    )
    for name, pattern in LEARNT.items():
        if found := re.search(pattern, done.stdout):
            variables[example.page][name] = found[1]
    out, wanted = (
        UUID.sub("ID", TIME.sub("TIME", MODELS.sub(r"\1: ...", text.strip())))
        for text in (done.stdout, example.printed)
    )
    if example.is_long:  # what is learnt differs a little from machine to machine, and in the width of its columns
        out, wanted = (re.sub(r" +", " ", NUMBER.sub("0.0", text)) for text in (out, wanted))
    assert differences_of(out, wanted, is_cut="head -c" in example.command) == []


def imported_first(block: Block) -> str:
    return f"{block.page}: {re.findall(r'(?:from|import) ([a-z_]+)', block.code)[0]}"


@pytest.mark.parametrize("block", PYTHON, ids=imported_first)
def test_a_python_example_prints_what_its_last_line_says(
    service: Service, block: Block, capsys: pytest.CaptureFixture[str]
) -> None:
    promise = re.search(r"\n# prints: (.+)\n$", block.code)
    assert promise, "the last line is '# prints: ...'"
    local = block.code.replace("http://localhost:8000", service.url)
    exec(compile(local, block.page, "exec"), {})  # here, because some clients take seconds to import
    assert differences_of(capsys.readouterr().out, promise[1], is_cut=False) == []


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
        found = [block.page for block in PYTHON if re.search(rf"^from {client}\b|^import {client}\b", block.code, re.M)]
        assert found == ["docs/clients.md"], client


def test_the_pages_show_every_route_of_the_service() -> None:
    from serve_app.api.application import create_app
    from serve_app.domain.request_limits import FineTuneLimits, Limits

    paths = create_app(None, None, Limits(), FineTuneLimits()).openapi()["paths"]  # type: ignore[arg-type]
    shown = " ".join(example.command for example in COMMANDS)
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


def test_a_command_that_several_pages_show_prints_the_same_on_each() -> None:
    printed: dict[str, set[str]] = defaultdict(set)
    for command in commands():
        if "$" not in command.command:  # the ids of a page are its own
            printed[command.command].add(command.printed)
    assert [command for command, texts in printed.items() if len(texts) > 1] == []


def differences_of(out: str, wanted: str, *, is_cut: bool) -> list[str]:
    """What differs between a command's output and its page, whose digits beyond the fifth depend on the CPU.

    Args:
        out: What the command printed.
        wanted: What the page says.
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
