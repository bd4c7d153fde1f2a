"""The documentation agrees with the code, with the measured numbers and with itself; its examples are run elsewhere."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import report
from serve_app.settings.environment import ENVIRONMENT
from serve_app.settings.security_settings import FILE_VARIABLE, KEYS_VARIABLE
from serve_app.settings.service_settings import Settings
from tests.documentation import PAGES, README, anchors, blocks, links, name_of, prose, table_rows
from tests.service_process import ROOT
from tools import generate_docs
from tools.json_schema import type_of

BENCHMARKS = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "benchmarks" / "results"
OTHER_PAGES = [ROOT / name for name in ("CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md", "benchmarks/README.md")]
LINKED = [*PAGES, *(path for path in OTHER_PAGES if path.is_file())]

every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def test_generated_parts_are_what_the_code_says() -> None:
    differing = [name_of(path) for path, text, wanted in generate_docs.pages() if text != wanted]
    assert differing == [], "run `make docs` and look at what has changed"


def test_every_setting_and_every_variable_is_on_the_page() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    schema = Settings.model_json_schema()
    names = {name for group in (schema, *schema["$defs"].values()) for name in group.get("properties", {})}
    names |= {*ENVIRONMENT, FILE_VARIABLE, KEYS_VARIABLE}
    assert len(names) > 60
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "exclusiveMaximum": 100}, "integer ≥ 1, < 100"),
        ({"anyOf": [{"type": "number", "exclusiveMinimum": 0.5}, {"const": "auto"}]}, 'number > 0.5 or "auto"'),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string"),  # null means absent
        ({"anyOf": [{"type": "boolean"}, {"enum": ["true", "TRUE", "True", "false"]}]}, "boolean"),
        ({"enum": ["none", "NONE", "end", "END"]}, '"none" or "end"'),
        (
            {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/Pair"}, {"type": "string"}]}},
            "list of (object or string)",
        ),
    ],
)
def test_a_type_in_words(schema: dict[str, Any], words: str) -> None:
    assert type_of(schema, {"Pair": {"type": "object"}}) == words


def test_every_part_that_can_be_generated_is_on_a_page() -> None:
    marked = {name for page in PAGES for name in re.findall(r"<!-- generated: ([\w -]+) -->", page.read_text())}
    assert marked == set(generate_docs.PARTS)


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_relative_links_lead_somewhere(page: Path) -> None:
    lost = []
    for link in links(page):
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            lost.append(link)
    assert lost == []


_PATHS = re.compile(r"`((?:serve_app|training|tests|tools|examples|benchmarks|configs|docs)/[\w./-]+)`")


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    text = re.sub(r"`[^`\n]+` \(new\)", "", page.read_text(encoding="utf-8"))
    assert [name for name in _PATHS.findall(text) if "/X/" not in name and not (ROOT / name).exists()] == []


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert pictures
    assert [picture.name for picture in pictures if picture.stat().st_size > 250_000] == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = {README}, [README]
    while waiting:
        page = waiting.pop()
        paths = {(page.parent / link.partition("#")[0]).resolve() for link in links(page)}
        new = {path for path in paths if path.suffix == ".md" and path not in reached}
        reached |= new
        waiting += new
    assert [name_of(page) for page in PAGES if page not in reached] == []


ODD_WORDS = re.compile(
    r"\b(can not|whoever|somebody|nobody|of which|is told|doors?|passengers?|ledgers?|rivals?|diary|strays?)\b", re.I
)


@every_page
def test_the_words_are_plain_ones(page: Path) -> None:
    assert ODD_WORDS.findall(prose(page.read_text(encoding="utf-8"))) == []


# ---------------------------------------------------------------- configurations


@pytest.mark.parametrize("block", [pytest.param(b, id=b.page) for b in blocks("yaml")])
def test_yaml_is_a_configuration_that_fits_its_gpus(block: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MODEL_NAME", "MODEL_FAMILY", "MODEL_DEVICE", "MODEL_DTYPE", "MODELS_DIR", "JOBS_DIR"):
        monkeypatch.delenv(variable, raising=False)
    given = yaml.safe_load(block.code)
    settings = Settings(**(given["applications"][0]["args"] if "applications" in given else given))
    for flag in block.flags:
        gpus = float(flag.removeprefix("gpus="))
        served = sum(model.max_replicas * float(model.num_gpus) for model in (*settings.models, *settings.rerankers))
        trained = settings.training.num_workers * float(settings.training.gpus_per_worker)
        assert served + trained == pytest.approx(gpus)


# ---------------------------------------------------------------- messages


@cache
def messages() -> str:
    """Every string of the code, the parts of an f-string joined with a placeholder between them."""
    found = []
    for path in [*(ROOT / "serve_app").rglob("*.py"), *(ROOT / "training").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(v.value if isinstance(v, ast.Constant) else "{}" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_the_messages_of_the_troubleshooting_tables_exist() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").partition("## Troubleshooting")[2]
    quoted = re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)
    assert len(quoted) > 10
    assert [message for message in quoted if message not in messages()] == []


# ---------------------------------------------------------------- numbers


def results(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def number(text: str) -> float:
    return float(text.replace(",", ""))


def is_rounded(text: str, value: float) -> bool:
    """Whether a number on a page is a measured value, rounded to as many digits as the page shows."""
    decimals = len(text.partition(".")[2])
    if abs(number(text) - value) <= 0.5001 * 10**-decimals:
        return True
    return value >= 100 and number(text) == float(f"{value:.3g}")  # three digits of large ones


def shown(label: str) -> list[str]:
    """The numbers of a row of the page."""
    return [cell for cell in table_rows(BENCHMARKS)[label] if cell]


def differing(label: str, values: list[float]) -> list[str]:
    """What is wrong with a row of the page."""
    cells = shown(label)
    if len(cells) != len(values):
        return [f"{label}: {len(cells)} numbers, not {len(values)}"]
    return [f"{label}: {c} is {v}" for c, v in zip(cells, values, strict=True) if not is_rounded(c, v)]


def test_the_numbers_of_the_readme_are_those_of_the_benchmarks_page() -> None:
    measured = table_rows(BENCHMARKS)
    rows = {label: cells for label, cells in table_rows(README).items() if cells and re.fullmatch(r"[\d.,]+", cells[0])}
    assert len(rows) == 3
    assert {label: measured[label] for label in rows} == rows


OF_MAKE_BENCH = {
    "sentence-transformers in-process, groups of 256": "in-process, groups of 256: the limit of lists",
    "this service, 4 clients with lists of 64": "this service, 4 clients with lists of 64",
    "sentence-transformers in-process, groups of 32": "in-process, groups of 32: the limit of singles",
    "this service, 32 clients with one text each": "this service, 32 clients with one text",
    "plain FastAPI + sentence-transformers, 32 clients": "plain service, 32 clients with one text",
}


def test_the_table_of_make_bench_is_that_of_its_results_file(tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    table.write_text(report.markdown(results("2026-11-26-amd-epyc.json")), encoding="utf-8")
    rows = table_rows(table)
    found = [
        difference
        for label, reported in OF_MAKE_BENCH.items()
        for difference in differing(label, [number(rows[reported][0]), number(rows[reported][3])])
    ]
    assert found == []


def test_the_fine_tuning_table_is_that_of_its_results_file() -> None:
    measured = results("2026-11-26-amd-epyc-learning-multilingual-e5-small.json")
    quality = {row["kind"]: [row["ndcg"], row["recall"]] for row in measured["quality"]}
    found = []
    for job, label in zip(measured["jobs"], ("full", "LoRA", "Q-LoRA"), strict=True):
        cells = [cell.removeprefix("0 of ") for cell in shown(label)]
        values = [*quality[job["kind"]], job["runs_s"], job["first_step_s"], job["done_s"], job["during"]["requests"],
                  job["during"]["p99_ms"]]  # fmt: skip
        assert job["during"]["failures"] == 0
        found += [f"{label}: {c} is {v}" for c, v in zip(cells, values, strict=True) if not is_rounded(c, v)]
    assert found == []
    assert [is_rounded(c, v) for c, v in zip(shown("before"), quality["base"], strict=False)] == [True, True]


OF_CAPACITY = {
    "1 client with one text": "service, 1 client, one text",
    "256 clients with one text": "service, 256 clients, one text",
    "4 clients with lists of 64": "service, 4 clients, lists of 64",
    "64 clients with lists of 64": "service, 64 clients, lists of 64",
}


def test_the_table_of_a_gpu_is_that_of_its_results_file() -> None:
    rows = {(row["who"], row["kind"]): row for row in results("2026-11-26-nvidia-h200-capacity.json")["rows"]}
    found = []
    for label, who in OF_CAPACITY.items():
        measured = [rows[who, kind][of] for kind in ("short", "mixed") for of in ("texts_per_s", "p50_ms", "p99_ms")]
        found += differing(label, measured)
    assert found == []


def test_the_table_of_hybrid_vectors_is_that_of_its_results_file() -> None:
    medians = results("2026-11-25-amd-epyc-m3.json")["medians"]
    found = []
    for label, colbert in (
        ("dense + sparse, short / mixed, texts per second", "without"),
        ("dense + sparse + ColBERT", "with"),
    ):
        for cell, who in zip(shown(label), ("FlagEmbedding", "service"), strict=True):
            measured = [medians[f"{who}, {texts}, {colbert} ColBERT, texts/s"] for texts in ("short", "mixed")]
            found += [
                f"{label}: {c} is {v}" for c, v in zip(cell.split(" / "), measured, strict=True) if not is_rounded(c, v)
            ]
    assert found == []
