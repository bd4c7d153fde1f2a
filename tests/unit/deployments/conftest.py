from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """A replica that is made in a test joins our log to Serve's, for good; the next test wants to see it as it was."""
    ours = logging.getLogger("serve_app")
    parent, handlers = ours.parent, list(ours.handlers)
    yield
    ours.parent, ours.handlers = parent, handlers
