"""Shared by all tests that need a real service: one cluster for the whole run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import STARTER, STARTER_FOLDER, Service, running


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The starter model twice: in float32 (the default) and, as ``e5-bfloat16``, in bfloat16.

    Two ingress replicas and two float32 encoders, so that the same cluster serves the fault tests.
    """
    if not STARTER_FOLDER.is_dir():
        pytest.fail("the starter model is missing: make models")
    folder = tmp_path_factory.mktemp("service")
    models = folder / "models"
    models.mkdir()
    for name in (STARTER, "e5-bfloat16"):
        (models / name).symlink_to(STARTER_FOLDER)
    small = {"num_cpus": 0.1, "threads": 1}
    args = {
        "models_dir": str(models),
        "models": [
            {"name": STARTER, "dtype": "float32", "num_replicas": 2, **small},
            {"name": "e5-bfloat16", "dtype": "bfloat16", **small},
        ],
        "ingress": {"num_replicas": 2},
    }
    with running(folder, args) as service:
        yield service


@pytest.fixture(scope="session")
def starter_folder() -> Path:
    """The folder of the starter E5."""
    return STARTER_FOLDER
