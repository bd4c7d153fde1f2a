"""The structure of the code: allowed imports between parts, the modules that each process loads, file names.

An import between parts that is not listed here is an error. To allow one, change the design first, then this table.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("serve_app", "training")
FILES = sorted(path.relative_to(ROOT) for top in OURS for path in (ROOT / top).rglob("*.py"))

DOMAIN, MODELS, API = "serve_app.domain", "serve_app.models", "serve_app.api"
DEPLOYMENTS, INFERENCE, JOBS = "serve_app.deployments", "serve_app.inference", "serve_app.jobs"
SETTINGS, SECURITY, LAUNCH = "serve_app.settings", "serve_app.security", "serve_app.launch"
STARTER_MODELS, TRAINING = "serve_app.starter_models", "training"
KEYS = "serve_app.keys"  # the command that makes API keys
ENTRIES = ("serve_app.app", "serve_app.__main__")  # they assemble the parts

ALLOWED_IMPORTS: dict[str, set[str]] = {
    DOMAIN: set(),
    MODELS: {DOMAIN},
    SECURITY: {DOMAIN},
    SETTINGS: {DOMAIN, SECURITY},
    KEYS: {DOMAIN, SECURITY},
    JOBS: {DOMAIN},
    API: {DOMAIN, SECURITY, JOBS},
    INFERENCE: {API, MODELS, DOMAIN, JOBS, SETTINGS},
    DEPLOYMENTS: {API, INFERENCE, MODELS, DOMAIN, JOBS, SECURITY, SETTINGS},
    LAUNCH: {DOMAIN, SETTINGS, DEPLOYMENTS},
    STARTER_MODELS: {DOMAIN, MODELS},
    TRAINING: {DOMAIN, MODELS, JOBS},
} | {entry: {DOMAIN, MODELS, API, LAUNCH, SETTINGS, JOBS, DEPLOYMENTS, SECURITY, INFERENCE} for entry in ENTRIES}

WEB = {"fastapi", "fastapi_offline", "pydantic", "starlette"}
MATHS = {"torch", "transformers", "sentence_transformers", "peft", "safetensors", "tokenizers", "huggingface_hub"}
FORBIDDEN_LIBRARIES: dict[str, set[str]] = {
    DOMAIN: {"ray", *WEB, *MATHS},
    MODELS: {"ray", *WEB},
    SECURITY: {"ray", *WEB, *MATHS},
    SETTINGS: {"ray", *MATHS},
    KEYS: {"ray", *WEB, *MATHS},
    JOBS: {*WEB, *MATHS},
    API: {"ray", *MATHS},
    INFERENCE: {"ray", "torch", "transformers", "sentence_transformers", "peft"},
    DEPLOYMENTS: {"torch", "transformers", "sentence_transformers", "peft"},
    LAUNCH: {*WEB - {"pydantic"}, *MATHS},
    STARTER_MODELS: {"ray", *WEB},
    TRAINING: WEB,
} | {entry: {"torch", "transformers", "sentence_transformers", "peft"} for entry in ENTRIES}

PREFIX_MODULES = ("serve_app.domain.profiles", "serve_app.starter_models")
SHELLS = ("ingress.py", "encoder.py", "reranker.py")


def module_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def part_of(module: str) -> str | None:
    """The part that a module belongs to; None for the package itself, which has no code."""
    return next((part for part in ALLOWED_IMPORTS if module == part or module.startswith(part + ".")), None)


def imports(source: str, module: str, *, is_package: bool) -> Iterator[str]:
    """All modules that a source imports, in functions too; relative names are made absolute."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")
            above = above[: len(above) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def violations(source: str, path: Path) -> list[str]:
    module = module_of(path)
    part = part_of(module)
    found = []
    for name in imports(source, module, is_package=path.name == "__init__.py"):
        top, target = name.split(".")[0], part_of(name)
        if part is None:
            if top in OURS and target is not None:
                found.append(f"{module} belongs to no part and imports {name}")
        elif top in FORBIDDEN_LIBRARIES[part]:
            found.append(f"{module} imports {name}; {part} must not import {top}")
        elif target not in {None, part, *ALLOWED_IMPORTS[part]}:
            found.append(f"{module} imports {name}; {part} must not import {target}")
    return found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_between_parts_are_listed(path: Path) -> None:
    assert not violations((ROOT / path).read_text(encoding="utf-8"), path)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_belongs_to_a_part(path: Path) -> None:
    assert part_of(module_of(path)) is not None or path.name == "__init__.py"


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("serve_app/domain/x.py", "import serve_app.models.loader"),
        ("serve_app/domain/x.py", "from serve_app import settings"),
        ("serve_app/domain/x.py", "from ..api import texts"),
        ("serve_app/domain/x.py", "def f():\n    import pydantic"),
        ("serve_app/domain/__init__.py", "from ..models import loader"),
        ("serve_app/models/x.py", "import ray.serve"),
        ("serve_app/starter_models/x.py", "from ..api import texts"),
        ("serve_app/api/x.py", "from serve_app.models.model_source import find_model"),
        ("serve_app/api/x.py", "if True:\n    from torch import nn"),
        ("serve_app/deployments/x.py", "from serve_app import app"),
        ("serve_app/deployments/x.py", "import torch"),
        ("serve_app/__init__.py", "from serve_app.domain import errors"),
        ("training/x.py", "from serve_app.api import texts"),
    ],
)
def test_a_forbidden_import_is_found(path: str, source: str) -> None:
    assert violations(source, Path(path))


@pytest.mark.parametrize("path", [p for p in FILES if not module_of(p).startswith(PREFIX_MODULES)], ids=str)
def test_only_profiles_contain_prefixes(path: Path) -> None:
    assert not prefix_literals((ROOT / path).read_text(encoding="utf-8"))


def prefix_literals(source: str) -> list[int]:
    """Line numbers of string literals, f-strings included, that contain an E5 prefix; docstrings may."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and id(node) not in docstrings
        and isinstance(node.value, str)
        and any(f"{role}: " in node.value for role in ("query", "passage"))
    ]


def test_a_prefix_literal_is_found() -> None:
    assert prefix_literals('"""Of a query: all."""\nb = f"query: {a}"\nc = "passage: " + b') == [2, 3]


@pytest.mark.parametrize("path", [p for p in FILES if p.parts[1:] in {("deployments", s) for s in SHELLS}], ids=str)
def test_deployments_are_shells_of_less_than_150_lines(path: Path) -> None:
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("serve_app.deployments.ingress", ["torch", "transformers", "sentence_transformers"]),
        ("serve_app.api.application", ["ray", "torch", "transformers", "tokenizers", "serve_app.models"]),
        ("serve_app.models.tokenizer", ["ray", "torch", "transformers", "fastapi"]),
        ("serve_app.models.model_source", ["ray", "torch", "transformers", "fastapi"]),
        ("serve_app.__main__", ["ray", "torch", "fastapi", "pydantic", "yaml", "serve_app.settings.service_settings"]),
        ("serve_app.launch.config", ["ray", "torch", "fastapi", "serve_app.models"]),
        ("serve_app.settings.service_settings", ["ray", "torch", "fastapi", "serve_app.models"]),
        ("serve_app.domain.profiles", ["ray", "torch", "fastapi", "pydantic", "serve_app.models"]),
    ],
)
def test_a_process_loads_only_what_it_needs(module: str, never: list[str]) -> None:
    program = f"import sys, {module}; print(*[name for name in {never!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split() == []


def test_no_file_name_is_used_for_two_ideas() -> None:
    """A name says which file to open; tests of one subject at several levels may share theirs."""
    shared = {"__init__.py", "__main__.py", "conftest.py"}
    found: dict[str, list[str]] = {}
    for top in (*OURS, "tools", "tests"):
        for path in sorted((ROOT / top).rglob("*.py")):
            if path.name not in shared and not path.name.startswith("test_"):
                found.setdefault(path.name, []).append(str(path.relative_to(ROOT)))
    assert [paths for paths in found.values() if len(paths) > 1] == []
