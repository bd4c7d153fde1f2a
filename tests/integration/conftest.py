"""References that several integration tests share: they take seconds to load."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.m3_reference import M3Reference


@pytest.fixture(scope="session")
def m3_reference(models_dir: Path) -> Callable[[str], M3Reference]:
    """FlagEmbedding on a model of the service, by its name."""
    return cache(lambda name: M3Reference(models_dir / name))
