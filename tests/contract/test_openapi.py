"""Schemathesis sends a thousand and more generated requests for the OpenAPI document to the running service."""

from __future__ import annotations

import re
import subprocess
import sysconfig
from pathlib import Path

import httpx

from tests.service import Service

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


def test_a_thousand_generated_requests_get_documented_answers_and_no_500(service: Service) -> None:
    """One worker asks: Python 3.11's parser, which Hypothesis uses, now and then breaks in two threads at once."""
    run = subprocess.run(
        [
            str(SCHEMATHESIS), "run", f"{service.url}/openapi.json", "--no-color", "--seed", "1", "--workers", "1",
            "--phases", "examples,coverage,fuzzing", "--max-examples", "12", "--checks", ",".join(CHECKS),
            "--exclude-path-regex", EXCLUDED, "--suppress-health-check", "all",
        ],
        capture_output=True, text=True, timeout=390, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-5000:]
    counted = re.search(r"(\d+) generated, (\d+) passed", run.stdout)
    assert counted, run.stdout[-2000:]
    assert int(counted[1]) >= 1000
    assert counted[1] == counted[2]


def test_the_documentation_pages_load_everything_from_the_service_itself(service: Service) -> None:
    for page in ("/docs", "/redoc"):
        html = httpx.get(service.url + page).text
        sources = re.findall(r'(?:src|href)="([^"]+)"', html)
        assert sources
        for source in sources:
            assert source.startswith("/"), f"{page} loads {source}"
            assert httpx.get(service.url + source).status_code == 200
