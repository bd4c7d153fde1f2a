"""What several integration tests share: references that take seconds to load, and a long fine-tune."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import httpx
import pytest

from tests.fine_tuning import forget
from tests.integration import four_bits
from tests.m3_reference import M3Reference
from tests.service_process import Service


@pytest.fixture(scope="session")
def m3_reference(models_dir: Path) -> Callable[[str], M3Reference]:
    """FlagEmbedding on a model of the service, by its name."""
    return cache(lambda name: M3Reference(models_dir / name))


@pytest.fixture(scope="session")
def four_bits_job(service: Service) -> Iterator[str]:
    """The id of a Q-LoRA of the starter E5 that has been submitted."""
    with httpx.Client(base_url=service.url, timeout=120) as client:
        job = four_bits.submit_job(client)
        yield job
        forget(client, four_bits.NAME, job)


@pytest.fixture(scope="session")
def four_bits_ahead(request: pytest.FixtureRequest) -> None:
    """Submits that job early where a test of this run is going to wait for it."""
    if any("four_bits_job" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("four_bits_job")
