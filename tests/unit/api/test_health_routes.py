from __future__ import annotations

import asyncio

import httpx
import pytest

from serve_app.api.dialects.native import health_routes
from serve_app.api.model_states import ModelReadiness
from serve_app.domain.errors import DeadlineError, NonFiniteError, ServiceError, UnavailableError
from tests.unit.api.conftest import SharedApplication
from tests.unit.api.fake_inference import FakeInference

READY = {
    "status": "ok",
    "model": "my-e5",
    "family": "e5",
    "dimension": 4,
    "max_tokens": 512,
    "device": "cpu",
    "dtype": "float32",
}


class Clock:
    now = 0.0

    @classmethod
    def monotonic(cls) -> float:
        return cls.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr(health_routes, "time", Clock)
    Clock.now += 1000  # what the test before saw is long forgotten
    return Clock


@pytest.fixture(scope="module")
def shared() -> SharedApplication:
    """An application for this file, because it remembers the last check by this file's clock."""
    return SharedApplication()


MODELS = [{"model": "my-e5", "serves": "embed", "state": "ready", "reason": None, "device": "cpu", "dtype": "float32"}]


@pytest.mark.parametrize(("path", "more"), [("/health", {}), ("/readyz", {"models": MODELS})])
async def test_health_has_the_model_after_a_forward(
    client: httpx.AsyncClient, inference: FakeInference, path: str, more: dict[str, object]
) -> None:
    reply = await client.get(path)
    assert (reply.status_code, reply.json()) == (200, READY | more)
    assert inference.checks == [5.0]


async def test_readyz_has_the_state_of_each_model_and_a_reason(
    client: httpx.AsyncClient, inference: FakeInference, clock: type[Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    inference.readiness_of.append(ModelReadiness("my-m3", "rerank", "loading", "it is loading"))
    reply = await client.get("/readyz")
    assert [(m["model"], m["serves"], m["state"], m["reason"]) for m in reply.json()["models"]] == [
        ("my-e5", "embed", "ready", None),
        ("my-m3", "rerank", "loading", "it is loading"),
    ]
    assert reply.status_code == 200
    inference.not_ready = "'my-m3' (rerank) is down"
    monkeypatch.setattr(clock, "now", clock.now + 1.01)
    reply = await client.get("/readyz")
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "2")
    assert {name: reply.json()[name] for name in ("detail", "code")} == {
        "detail": "not ready: 'my-m3' (rerank) is down",
        "code": "unavailable",
    }
    assert len(reply.json()["models"]) == 2
    assert (await client.get("/health")).status_code == 503


@pytest.mark.parametrize("path", ["/health", "/readyz"])
@pytest.mark.parametrize(
    "error",
    [UnavailableError("a forward hangs"), DeadlineError("slow"), NonFiniteError("broken weights")],
)
async def test_without_a_forward_it_is_503_with_the_reason_and_when_to_come_back(
    client: httpx.AsyncClient, inference: FakeInference, path: str, error: ServiceError
) -> None:
    inference.error = error
    reply = await client.get(path)
    assert reply.status_code == 503
    assert reply.json() == {"detail": f"not ready: {error.message}", "code": "unavailable"}
    assert reply.headers["retry-after"] == "2"


async def test_livez_answers_without_any_model(client: httpx.AsyncClient, inference: FakeInference) -> None:
    inference.error = UnavailableError("loading")
    reply = await client.get("/livez")
    assert (reply.status_code, reply.json()) == (200, {"status": "ok"})
    assert inference.checks == []


async def test_health_and_readyz_share_one_forward_for_a_second(
    client: httpx.AsyncClient, inference: FakeInference, clock: type[Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.gather(*(client.get(path) for path in ("/health", "/readyz") for _ in range(10)))
    assert len(inference.checks) == 1
    monkeypatch.setattr(clock, "now", clock.now + 0.99)
    assert (await client.get("/health")).json() == READY
    assert (await client.get("/readyz")).json() == READY | {"models": MODELS}
    assert len(inference.checks) == 1
    monkeypatch.setattr(clock, "now", clock.now + 0.02)
    inference.error = UnavailableError("gone")
    assert [(await client.get(path)).status_code for path in ("/health", "/readyz")] == [503, 503]
    assert len(inference.checks) == 2


async def test_a_failure_is_shared_for_a_second_as_well_and_not_longer(
    client: httpx.AsyncClient, inference: FakeInference, clock: type[Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    inference.error = UnavailableError("loading")
    assert [(await client.get("/health")).status_code for _ in range(3)] == [503, 503, 503]
    assert len(inference.checks) == 1
    inference.error = None
    monkeypatch.setattr(clock, "now", clock.now + 1.01)
    assert (await client.get("/health")).status_code == 200


async def test_an_unexpected_failure_of_a_check_is_not_remembered(
    client: httpx.AsyncClient, inference: FakeInference
) -> None:
    inference.error = RuntimeError("secret")
    reply = await client.get("/health")
    assert (reply.status_code, reply.json()["code"]) == (500, "internal_error")
    inference.error = None
    assert (await client.get("/health")).status_code == 200
