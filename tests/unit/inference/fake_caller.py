"""Fake deployments: they record their calls and give scripted answers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from serve_app.domain.errors import UnavailableError
from serve_app.inference.replica_caller import ReplicaCaller, ReplicaState


class FakeDeployment:
    """A deployment with one replica whose methods are functions."""

    def __init__(self, **methods: Callable[..., Any]) -> None:
        self._methods = methods

    async def call(self, method: str, *args: Any) -> Any:
        return await self._methods[method](*args)


class FakeCaller(ReplicaCaller):
    """Answers with what ``answer`` makes of a method and its argument; ``calls`` has all of them."""

    def __init__(self, answer: Callable[[str, Any], Any] = lambda *_: None) -> None:
        super().__init__(FakeDeployment())
        self.state = ReplicaState("cpu", "float32", 1)
        self.calls: list[tuple[str, Any]] = []
        self._answer = answer

    async def call(self, method: str, value: Any) -> Any:
        self.calls.append((method, value))
        answer = self._answer(method, value)
        return await answer if inspect.isawaitable(answer) else answer

    def require_ready(self) -> None:
        if self.state is None:
            raise UnavailableError("no replica answers")


async def never(*_: object) -> None:
    """What a replica answers that hangs."""
    await asyncio.Event().wait()
