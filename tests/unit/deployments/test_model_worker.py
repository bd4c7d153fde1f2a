"""A replica's worker: results, and the health check that fails. The model is a function."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.deployments import model_worker as device_module
from serve_app.deployments.model_worker import ModelWorker
from serve_app.domain.errors import InternalError, NonFiniteError, OutOfMemoryError, QueueFullError, ServiceError
from serve_app.inference.replica_caller import ReplicaState
from serve_app.models.batching import scheduler as scheduler_module
from serve_app.models.batching.isolation import run_isolated
from serve_app.settings.batching_settings import BatchingSettings
from serve_app.settings.model_settings import ModelSettings

PATIENCE_S = 10.0
PROBE = "probe"
SUSPICIOUS_FORWARDS = 5


class FakeMetrics:
    """Counts nothing, and needs no Ray."""

    def __init__(self, *_: object) -> None:
        self.reports: list[Any] = []

    def start(self, _: object) -> None: ...

    def observe(self, report: Any) -> None:
        self.reports.append(report)


class Model:
    """Texts are strings and their vectors their upper case.

    Attributes:
        error: What every text gets instead.
        probe_error: What the probe gets.
        forwards: The micro-batches, in order.
        gate: Closed, a forward waits for it.
    """

    def __init__(self) -> None:
        self.error: ServiceError | None = None
        self.probe_error: ServiceError | None = None
        self.forwards: list[list[str]] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self._begun: queue.Queue[list[str]] = queue.Queue()

    def compute(self, texts: Sequence[str]) -> list[str | ServiceError]:
        self.forwards.append(list(texts))
        self._begun.put(list(texts))
        self.threads.add(threading.current_thread().name)
        assert self.gate.wait(PATIENCE_S)
        if list(texts) == [PROBE]:
            return [self.probe_error or PROBE]
        return [self.error or text.upper() for text in texts]

    async def until_forward(self, texts: list[str]) -> None:
        """Waits until the forward of just these texts has begun."""
        while await asyncio.to_thread(self._begun.get, timeout=PATIENCE_S) != texts:
            pass

    @property
    def probes(self) -> int:
        return self.forwards.count([PROBE])


class Clock:
    """The time of day plus what was added."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(device_module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
async def device(model: Model, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ModelWorker[str, str]]:
    monkeypatch.setattr(device_module, "DeviceMetrics", FakeMetrics)
    async with running(made(model)) as device:
        yield device
        model.gate.set()


@asynccontextmanager
async def running(device: ModelWorker[str, str]) -> AsyncIterator[ModelWorker[str, str]]:
    await device.start()
    yield device
    await device._scheduler.stop()
    device._executor.shutdown()


def made(model: Model, where: str = "cpu", *, max_batch_tokens: int = 10) -> ModelWorker[str, str]:
    batching = BatchingSettings(max_batch_tokens=max_batch_tokens, max_padding_tokens=0, max_backlog_tokens=50)
    settings = ModelSettings(name="tiny", batching=batching)
    return ModelWorker(model.compute, probe=PROBE, settings=settings, state=ReplicaState(where, "float32", 1))


async def computed(
    device: ModelWorker[str, str], model: Model, texts: Sequence[str], *, key: int = 1
) -> list[str | ServiceError]:
    outcome = device.submit(model.compute, texts, [1] * len(texts), key=key, timeout_s=PATIENCE_S)
    return await asyncio.wait_for(outcome, PATIENCE_S)


async def fail(device: ModelWorker[str, str], model: Model, error: ServiceError, times: int) -> None:
    """So many forwards, one after the other, without a result."""
    model.error = error
    for _ in range(times):
        assert await computed(device, model, ["a", "b"]) == [error, error]
    model.error = None


# ------------------------------------------------------------------ what it computes


async def test_a_model_is_validated_before_its_worker_starts(device: ModelWorker[str, str], model: Model) -> None:
    assert model.forwards == [[PROBE]]


async def test_a_model_that_does_not_compute_does_not_start(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "DeviceMetrics", FakeMetrics)
    model.probe_error = NonFiniteError("no number")
    with pytest.raises(NonFiniteError, match="no number"):
        await made(model).start()


async def test_results_come_in_order_from_the_workers_thread(device: ModelWorker[str, str], model: Model) -> None:
    texts = [f"text {i}" for i in range(25)]
    assert await computed(device, model, texts) == [text.upper() for text in texts]
    assert len(model.threads) == 1
    assert threading.current_thread().name not in model.threads
    assert max(map(len, model.forwards)) <= 10
    assert isinstance(device.metrics, FakeMetrics)
    assert sum(report.texts for report in device.metrics.reports) == 25


async def test_texts_of_two_models_never_share_a_forward(device: ModelWorker[str, str], model: Model) -> None:
    other = Model()
    model.gate.clear()
    outcomes = [
        asyncio.ensure_future(computed(device, each, [f"{name}{i}" for i in range(3)], key=key))
        for key, (name, each) in enumerate({"a": model, "b": other}.items())
    ]
    await asyncio.sleep(0)
    model.gate.set()
    assert await asyncio.gather(*outcomes) == [["A0", "A1", "A2"], ["B0", "B1", "B2"]]
    assert not any(text.startswith("b") for forward in model.forwards for text in forward)
    assert not any(text.startswith("a") for forward in other.forwards for text in forward)


async def test_functions_on_the_device_thread_never_run_during_a_forward(
    device: ModelWorker[str, str], model: Model
) -> None:
    model.gate.clear()
    forward = asyncio.ensure_future(computed(device, model, ["a"]))
    await model.until_forward(["a"])
    function = asyncio.ensure_future(device.run(lambda: threading.current_thread().name))
    await asyncio.sleep(0.01)
    assert not function.done()
    model.gate.set()
    assert await function in model.threads
    assert await forward == ["A"]


async def test_a_full_backlog_refuses_and_recovers(device: ModelWorker[str, str], model: Model) -> None:
    model.gate.clear()
    waiting = [asyncio.ensure_future(computed(device, model, ["a"] * 10, key=key)) for key in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError):
        await computed(device, model, ["b"] * 10, key=7)
    model.gate.set()
    await asyncio.gather(*waiting)
    assert await computed(device, model, ["b"], key=8) == ["B"]


async def test_after_a_split_for_lack_of_memory_the_next_micro_batches_are_smaller(
    device: ModelWorker[str, str], model: Model
) -> None:
    """Ten texts fit the budget, and six of them the memory."""

    def limited(texts: Sequence[str]) -> list[str | ServiceError]:
        if len(texts) > 6:
            model.forwards.append(list(texts))
            raise MemoryError
        return model.compute(texts)

    def compute(texts: Sequence[str]) -> list[str | ServiceError]:
        return run_isolated(limited, texts)

    texts = [f"text {i}" for i in range(40)]
    outcome = device.submit(compute, texts, [1] * 40, key=1, timeout_s=PATIENCE_S)
    assert await asyncio.wait_for(outcome, PATIENCE_S) == [text.upper() for text in texts]
    sizes = [len(forward) for forward in model.forwards[1:]]
    assert sizes[:4] == [10, 5, 5, 5], "one forward fails, its halves and the next micro-batch fit"
    assert sizes.count(10) == 1


async def test_waiting_for_the_device_does_not_count_as_computation(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text of 10 tokens waits for an adapter that loads for 6 s; its own forward takes 0.25 s."""
    now_s = 0.0
    load = threading.Event()

    def load_adapter() -> None:
        nonlocal now_s
        assert load.wait(PATIENCE_S)
        now_s += 6.0

    def compute(texts: Sequence[str]) -> list[str | ServiceError]:
        nonlocal now_s
        now_s += 0.25
        return model.compute(texts)

    monkeypatch.setattr(device_module, "DeviceMetrics", FakeMetrics)
    monkeypatch.setattr(device_module, "perf_counter", lambda: now_s)
    monkeypatch.setattr(scheduler_module, "time", SimpleNamespace(monotonic=lambda: now_s))
    async with running(made(model, max_batch_tokens=384)) as device:
        loading = asyncio.ensure_future(device.run(load_adapter))
        await asyncio.sleep(0)
        outcome = device.submit(compute, ["a"], [10], key=1, timeout_s=PATIENCE_S)
        for _ in range(8):
            await asyncio.sleep(0)
        assert device._scheduler.under_way is not None
        load.set()
        await loading
        assert await asyncio.wait_for(outcome, PATIENCE_S) == ["A"]
        await asyncio.sleep(0)
        assert isinstance(device.metrics, FakeMetrics)
        assert [report.forward_s for report in device.metrics.reports] == [0.25]
        assert device._scheduler.budget_tokens == 384


# ------------------------------------------------------------------ does it still work?


async def test_when_micro_batches_stop_the_health_check_gives_the_reason(
    device: ModelWorker[str, str], model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take() -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(device._scheduler._backlog, "take", take)
    (error,) = await computed(device, model, ["a"])
    assert isinstance(error, InternalError)
    with pytest.raises(RuntimeError, match=r"'micro-batches' failed: KeyError\('a bug'\)"):
        await device.check_health()


async def test_a_healthy_device_is_not_probed(device: ModelWorker[str, str], model: Model) -> None:
    await computed(device, model, ["a"])
    await device.check_health()
    assert model.probes == 1, "the one at the start"


async def test_several_forwards_without_a_result_trigger_a_probe(device: ModelWorker[str, str], model: Model) -> None:
    await fail(device, model, InternalError("CUDA error"), SUSPICIOUS_FORWARDS - 1)
    await device.check_health()
    assert model.probes == 1
    await fail(device, model, InternalError("CUDA error"), 1)
    await device.check_health()
    assert model.probes == 2


async def test_a_probe_that_succeeds_clears_the_suspicion(device: ModelWorker[str, str], model: Model) -> None:
    await fail(device, model, InternalError("bad texts"), SUSPICIOUS_FORWARDS)
    await device.check_health()
    await device.check_health()
    await fail(device, model, InternalError("bad texts"), SUSPICIOUS_FORWARDS - 1)
    await device.check_health()
    assert model.probes == 2


async def test_a_probe_that_fails_asks_for_another_replica(device: ModelWorker[str, str], model: Model) -> None:
    await fail(device, model, InternalError("CUDA error"), SUSPICIOUS_FORWARDS)
    model.probe_error = InternalError("CUDA error: device-side assert triggered")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no longer computes: CUDA error: device-side assert"):
            await device.check_health()


async def test_one_result_in_between_clears_the_suspicion(device: ModelWorker[str, str], model: Model) -> None:
    for _ in range(3):
        await fail(device, model, InternalError("bad texts"), SUSPICIOUS_FORWARDS - 1)
        await computed(device, model, ["a"])
    await device.check_health()
    assert model.probes == 1


@pytest.mark.parametrize("error", [NonFiniteError("no number"), OutOfMemoryError("too long")])
async def test_errors_caused_by_texts_trigger_no_probe(
    device: ModelWorker[str, str], model: Model, error: ServiceError
) -> None:
    await fail(device, model, error, 2 * SUSPICIOUS_FORWARDS)
    await device.check_health()
    assert model.probes == 1


@pytest.mark.parametrize(
    ("where", "tokens", "healthy_s", "hung_s"),
    [
        ("cpu", 1, 119, 122),
        ("cpu", 8192, 4000, 4220),  # a large model in float32 on a slow core, beside a training
        ("cuda", 1, 119, 122),
        ("cuda", 16_384, 270, 290),
    ],
)
async def test_a_forward_that_hangs_asks_for_another_replica_and_one_that_is_long_does_not(
    model: Model,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    tokens: int,
    healthy_s: float,
    hung_s: float,
) -> None:
    monkeypatch.setattr(device_module, "DeviceMetrics", FakeMetrics)
    async with running(made(model, where)) as device:
        model.gate.clear()
        forward = device.submit(model.compute, ["a"], [tokens], key=1, timeout_s=PATIENCE_S)
        await model.until_forward(["a"])
        for clock.ahead_s in (0, healthy_s):
            await device.check_health()
            assert not device.state.is_stuck
        clock.ahead_s = hung_s
        assert device.state.is_stuck
        with pytest.raises(RuntimeError, match=r"has been running for \d+ s"):
            await asyncio.wait_for(device.check_health(), PATIENCE_S)
        model.gate.set()
        await forward
        await device.check_health()
        assert not device.state.is_stuck


async def test_no_probe_waits_behind_a_long_forward(device: ModelWorker[str, str], model: Model, clock: Clock) -> None:
    """Serve takes a health check that lasts for half a minute for a failed one."""
    await fail(device, model, InternalError("bad texts"), SUSPICIOUS_FORWARDS)
    model.gate.clear()
    forward = asyncio.ensure_future(computed(device, model, ["a"]))
    await model.until_forward(["a"])
    clock.ahead_s = 60.0
    await asyncio.wait_for(device.check_health(), PATIENCE_S / 2)
    model.gate.set()
    await forward
    assert model.probes == 1
