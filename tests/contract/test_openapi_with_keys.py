"""Schemathesis against a service with API keys: as a stranger, as a user and as an operator."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from serve_app.api.middleware.api_key_auth import OPEN, scope_for
from serve_app.security.api_keys import Scope
from tests.contract.test_openapi import CHECKS, EXCLUDED, SCHEMATHESIS
from tests.keyed import ADMIN, USE
from tests.service_process import Service

COMPUTING = "embed|rerank|score|vectorize|similarity|tokenize|decode"
# Of the routes that compute, one in each client's language: keys are looked at before the route is. ``test_openapi``
# asks all of them without keys, and ``tests/faults/test_strangers.py`` asks every route without a known one.
OTHERS = rf"^(?!/(vectorize|v1/embeddings|v2/rerank|tokenize)$).*({COMPUTING})"
REFUSABLE = [check for check in CHECKS if check != "unsupported_method"]  # a stranger gets 401 before any 405


def statuses(service: Service, folder: Path, *options: str) -> Mapping[tuple[str, str], set[int]]:
    """Sends generated requests and gives the statuses by method and path; no check may fail."""
    report = folder / "requests.har"
    run = subprocess.run(
        [
            str(SCHEMATHESIS), "run", f"{service.url}/openapi.json", "--no-color", "--seed", "1", "--workers", "1",
            "--phases", "examples,coverage", "--suppress-health-check", "all",
            "--report", "har", "--report-har-path", str(report), *options,
        ],
        capture_output=True, text=True, timeout=390, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-5000:]
    seen: dict[tuple[str, str], set[int]] = defaultdict(set)
    for entry in json.loads(report.read_text())["log"]["entries"]:
        path = urlsplit(entry["request"]["url"]).path
        seen[entry["request"]["method"], path].add(entry["response"]["status"])
    return seen


def test_a_stranger_gets_nothing_but_what_is_open(exposed: Service, tmp_path: Path) -> None:
    seen = statuses(exposed, tmp_path, "--checks", ",".join(REFUSABLE), "--exclude-path-regex", OTHERS)
    closed = {key: found for key, found in seen.items() if not (key[0] == "GET" and key[1] in OPEN)}
    assert len(closed) > 30
    assert set().union(*closed.values()) == {401}


def test_a_key_for_use_gets_nothing_of_the_operators(exposed: Service, tmp_path: Path) -> None:
    seen = statuses(
        exposed, tmp_path, "--checks", ",".join(REFUSABLE), "--exclude-path-regex", OTHERS,
        "--header", f"Authorization: Bearer {USE}",
    )  # fmt: skip
    operators = {key: found for key, found in seen.items() if scope_for(*key) is Scope.ADMIN}
    assert len(operators) > 10
    assert set().union(*operators.values()) == {403}
    assert 200 in seen["POST", "/vectorize"]


def test_an_operators_key_gets_documented_answers_and_no_500(exposed: Service, tmp_path: Path) -> None:
    """On the routes that compute nothing; ``test_openapi`` asks all of them, and no key makes a difference to those."""
    seen = statuses(
        exposed, tmp_path, "--checks", ",".join(CHECKS), "--exclude-path-regex", f"{EXCLUDED}|{COMPUTING}",
        "--header", f"X-API-Key: {ADMIN}",
    )  # fmt: skip
    assert not {401, 403} & set().union(*seen.values())
    assert 200 in seen["GET", "/jobs"]
