"""One application for many tests: building its routes takes longer than most of them."""

from __future__ import annotations

from typing import Any


class Delegate:
    """Passes every access on to its target, which is the fake of the test that is running.

    Attributes:
        target: None between two tests.
    """

    def __init__(self, target: Any = None) -> None:
        self.target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)
