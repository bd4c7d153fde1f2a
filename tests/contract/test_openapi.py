"""Schemathesis sends thousands of generated requests for the OpenAPI document to the running service."""

from __future__ import annotations

import re
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.service_process import Service

SCHEMATHESIS = Path(sysconfig.get_path("scripts")) / "schemathesis"
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
]
# The health routes run a forward each, a valid fine-tune would be trained, `/` is also a page for people, and the last
# two are the routes below /v1 by another path.
EXCLUDED = "^/(livez|readyz|health|fine-tune|fine-tune-lora|embeddings|score)?$"


# Half of the requests each; two processes ask at the same time.
HALVES = {
    "embeddings": ["--include-path-regex", "embed|similarity", "--exclude-path-regex", EXCLUDED],
    "all others": ["--exclude-path-regex", f"{EXCLUDED}|embed|similarity"],
}


def generated(url: str, options: list[str]) -> subprocess.CompletedProcess[str]:
    """One worker asks: Python 3.11's parser, which Hypothesis uses, now and then breaks in two threads at once."""
    return subprocess.run(
        [
            str(SCHEMATHESIS), "run", f"{url}/openapi.json", "--no-color", "--seed", "1", "--workers", "1",
            "--phases", "examples,coverage,fuzzing", "--max-examples", "12", "--checks", ",".join(CHECKS),
            "--suppress-health-check", "all", *options,
        ],
        capture_output=True, text=True, timeout=390, check=False,
    )  # fmt: skip


def test_thousands_of_generated_requests_get_documented_answers_and_no_500(service: Service) -> None:
    with ThreadPoolExecutor(len(HALVES)) as pool:
        runs = list(pool.map(lambda options: generated(service.url, options), HALVES.values()))
    for half, run in zip(HALVES, runs, strict=True):
        assert run.returncode == 0, f"{half}: {run.stdout[-5000:]}"
        counted = re.search(r"(\d+) generated, (\d+) passed", run.stdout)
        assert counted, f"{half}: {run.stdout[-2000:]}"
        assert int(counted[1]) >= 1000, half
        assert counted[1] == counted[2], half


def test_the_documentation_pages_load_everything_from_the_service_itself(service: Service) -> None:
    for page in ("/docs", "/redoc"):
        html = httpx.get(service.url + page).text
        sources = re.findall(r'(?:src|href)="([^"]+)"', html)
        assert sources
        for source in sources:
            assert source.startswith("/"), f"{page} loads {source}"
            assert httpx.get(service.url + source).status_code == 200
