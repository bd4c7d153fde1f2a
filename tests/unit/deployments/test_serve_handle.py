"""One call of a replica: what is sent again, and what is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ObjectLostError, OwnerDiedError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from serve_app.deployments.serve_handle import ServeHandle
from serve_app.domain.errors import NonFiniteError, QueueFullError, UnavailableError
from serve_app.inference import replica_caller as module
from serve_app.inference.replica_caller import DeploymentFailedError, ReplicaCaller


class FakeHandle:
    """A deployment whose ``rank`` fails with each of these errors, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.rank = SimpleNamespace(remote=self._rank)

    async def _rank(self, value: Any) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        return value


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_: float) -> None: ...

    monkeypatch.setattr(module, "asyncio", SimpleNamespace(Event=module.asyncio.Event, sleep=at_once))


LOST = (ActorDiedError(), ObjectLostError("ff", None, ""), OwnerDiedError("ff", None, ""))


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
async def test_a_call_whose_replica_or_answer_is_lost_is_sent_again(error: Exception) -> None:
    caller = ReplicaCaller(ServeHandle(FakeHandle(error, error)))  # type: ignore[arg-type]
    assert await caller.call("rank", 7) == 7


async def test_a_call_that_is_lost_at_every_attempt_fails() -> None:
    handle = FakeHandle(*[OwnerDiedError("ff", None, "")] * 9)
    with pytest.raises(UnavailableError, match="died under this request"):
        await ReplicaCaller(ServeHandle(handle)).call("rank", 7)  # type: ignore[arg-type]
    assert len(handle.errors) == 5


OTHERS = [
    (BackPressureError(9, 8), QueueFullError, "too many calls wait"),
    (DeploymentUnavailableError("Encoder-x"), DeploymentFailedError, "could not be deployed"),  # type: ignore[arg-type]
    (RayTaskError("rank", "trace", NonFiniteError("NaN")).as_instanceof_cause(), NonFiniteError, "^NaN$"),
    (RayTaskError("rank", "trace", KeyError("bug")).as_instanceof_cause(), RayTaskError, "trace"),
]


@pytest.mark.parametrize(("error", "kind", "message"), OTHERS, ids=lambda value: getattr(value, "__name__", None))
async def test_another_failure_has_our_type_and_is_not_sent_again(
    error: Exception, kind: type[Exception], message: str
) -> None:
    handle = FakeHandle(error, AssertionError("sent again"))
    with pytest.raises(kind, match=message):
        await ReplicaCaller(ServeHandle(handle)).call("rank", 7)  # type: ignore[arg-type]
    assert len(handle.errors) == 1
