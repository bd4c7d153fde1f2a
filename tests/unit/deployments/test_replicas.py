"""The replicas that have a model: an ``Encoder`` and a ``Reranker`` with a fake one, and what they count."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from serve_app.deployments import encoder as encoder_module
from serve_app.deployments import metrics as metrics_module
from serve_app.deployments import reranker as reranker_module
from serve_app.deployments.encoder import Encoder
from serve_app.deployments.metrics import DeviceMetrics
from serve_app.deployments.reranker import Reranker
from serve_app.domain.embeddings import Encoded, ModelVersion, RequestShare, TokenBatch
from serve_app.domain.errors import DeadlineError, ModelLoadError, NonFiniteError, ServiceError
from serve_app.domain.rank_request import QUERY, RankRequest
from serve_app.inference.replica_caller import ReplicaState
from serve_app.models import loader as loader_module
from serve_app.models.batching.scheduler import MicroBatchReport
from serve_app.settings.batching_settings import BatchingSettings
from serve_app.settings.model_settings import ModelSettings, RerankerSettings

BAD = 666
BATCHING = BatchingSettings(max_batch_tokens=12, max_padding_tokens=4, max_backlog_tokens=60)


class FakeMetric:
    """A counter, gauge or histogram of Ray that remembers what it was given."""

    registered: dict[str, FakeMetric]

    def __init__(self, name: str, *_: object, **__: object) -> None:
        self.values: list[tuple[float, dict[str, str]]] = []
        self.tags: dict[str, str] = {}
        self.registered[name] = self

    def set_default_tags(self, tags: dict[str, str]) -> None:
        self.tags = tags

    def inc(self, value: float = 1, tags: dict[str, str] | None = None) -> None:
        assert value > 0, "Ray refuses this"
        self.values.append((value, {**self.tags, **(tags or {})}))

    def set(self, value: float) -> None:
        self.values.append((value, self.tags))

    observe = set


@pytest.fixture(autouse=True)
def metrics(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeMetric]:
    FakeMetric.registered = {}
    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(metrics_module, kind, FakeMetric)
    return FakeMetric.registered


def reported(metrics: dict[str, FakeMetric], name: str) -> list[float]:
    return [value for value, _ in metrics[f"retrieval_{name}"].values]


# ------------------------------------------------------------------ what is counted


def test_device_metrics_hand_over_each_count_once(metrics: dict[str, FakeMetric]) -> None:
    device = DeviceMetrics("tiny", 100, lambda: (3, 70), lambda: 50)
    for padded in (40, 200):
        device.observe(MicroBatchReport(texts=2, tokens=30, padded_tokens=padded, longest_wait_s=0.5, forward_s=0.1))
    device.count_failure("non_finite", 2)
    device.flush()
    assert reported(metrics, "forward_seconds") == [0.1, 0.1]
    assert reported(metrics, "batch_fill_ratio") == [0.4, 1.0], "one text over the budget fills it"
    assert (reported(metrics, "forward_tokens"), reported(metrics, "forward_padded_tokens")) == ([60], [240])
    assert (reported(metrics, "backlog_texts"), reported(metrics, "backlog_tokens")) == ([3], [70])
    assert reported(metrics, "batch_budget_tokens") == [50]
    assert metrics["retrieval_text_failures"].values == [(2, {"model": "tiny", "code": "non_finite"})]
    device.flush()
    assert reported(metrics, "forward_tokens") == [60], "nothing is counted twice"


# ------------------------------------------------------------------ the encoder


class FakeModel:
    """Encodes a text as its first id and its length."""

    transformer = SimpleNamespace(device="cpu", dtype_name="float32")

    def __init__(self) -> None:
        self.forwards: list[list[int]] = []

    def release_memory(self) -> None:
        pass

    def encode(self, texts: Sequence[Any]) -> list[Encoded | ServiceError]:
        self.forwards.append([int(text.ids[0]) for text in texts])
        return [
            NonFiniteError("no number") if text.ids[0] == BAD else Encoded(np.array([text.ids[0], len(text.ids)], "f4"))
            for text in texts
        ]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    model = FakeModel()
    source = SimpleNamespace(dimension=2, require=lambda _: None)
    for module in (encoder_module, reranker_module):
        monkeypatch.setattr(module, "find_model", lambda *_, **__: source)
    monkeypatch.setattr(loader_module, "load_model", lambda _, **__: model)
    return model


async def started(kind: Any, settings: Any, folder: Path) -> Any:
    replica = kind.__new__(kind)
    await replica.__init__(settings, folder)
    return replica


async def stop(replica: Any) -> None:
    await replica._worker.tasks.stop()
    await replica._worker._scheduler.stop()
    replica._worker._executor.shutdown()


@pytest.fixture
async def encoder(model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Encoder]:
    encoder = await started(Encoder, ModelSettings(name="tiny", batching=BATCHING), tmp_path)

    async def alone(call: tuple[TokenBatch, Any]) -> Any:  # ``serve.batch`` needs a replica around it
        return encoder._submit(*call)

    monkeypatch.setattr(encoder, "_admit", alone)
    yield encoder
    await stop(encoder)


def batch(*requests: list[int], length: int = 3, model_version: ModelVersion | None = None) -> TokenBatch:
    rows = [np.full(length, i, np.int32) for request in requests for i in request]
    shares = tuple(RequestShare(key, len(request), 10.0) for key, request in enumerate(requests))
    return TokenBatch.of_rows(rows, shares, model_version)


async def test_an_encoder_answers_each_text_in_order_and_names_those_that_fail(
    encoder: Encoder, model: FakeModel, metrics: dict[str, FakeMetric]
) -> None:
    answer = await asyncio.wait_for(encoder.encode(batch([1, 2], [BAD], [4, 5, 6])), 10)
    assert answer.dense.tolist() == [[1, 3], [2, 3], [0, 0], [4, 3], [5, 3], [6, 3]]
    assert [(failure.index, failure.code) for failure in answer.failures] == [(2, NonFiniteError.code)]
    assert metrics["retrieval_text_failures"].values == [(1, {"model": "tiny", "code": NonFiniteError.code})]
    assert max(map(len, model.forwards)) <= 4


async def test_a_full_backlog_refuses_one_request_of_a_call_and_not_the_others(encoder: Encoder) -> None:
    answer = await asyncio.wait_for(encoder.encode(batch([1] * 15, [2] * 15, length=3)), 10)
    assert {failure.index for failure in answer.failures} == set(range(15, 30))
    assert {failure.code for failure in answer.failures} == {"queue_full"}
    assert answer.dense[:15].tolist() == [[1, 3]] * 15


async def test_a_deleted_fine_tune_is_an_error_for_each_of_its_texts(encoder: Encoder) -> None:
    answer = await asyncio.wait_for(encoder.encode(batch([1, 2], model_version=ModelVersion("laws", "job-1"))), 10)
    assert [failure.code for failure in answer.failures] == ["model_not_found"] * 2


async def test_an_encoder_reports_its_device_and_its_health(encoder: Encoder) -> None:
    state = await encoder.state()
    assert (state.device, state.dtype, state.is_stuck) == ("cpu", "float32", False)
    await encoder.check_health()


@pytest.mark.parametrize("kind", [Encoder, Reranker])
async def test_a_replica_whose_model_is_not_found_does_not_start(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModelLoadError("no such folder")

    module = encoder_module if kind is Encoder else reranker_module
    monkeypatch.setattr(module, "find_model", missing)
    settings = ModelSettings(name="tiny") if kind is Encoder else RerankerSettings(name="tiny")
    with pytest.raises(ModelLoadError, match="no such folder"):
        await started(kind, settings, tmp_path)


# ------------------------------------------------------------------ the reranker


class FakeCrossEncoder:
    """Scores a pair with its first id."""

    device, dtype_name = "cpu", "float32"

    def __init__(self) -> None:
        self.forwards: list[int] = []

    def forward(self, pairs: Sequence[Any]) -> list[float | ServiceError]:
        self.forwards.append(len(pairs))
        return [NonFiniteError("no number") if pair[0] == BAD else float(pair[0]) for pair in pairs]


@pytest.fixture
async def reranker(model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    scorer = FakeCrossEncoder()
    monkeypatch.setattr(loader_module, "load_cross_encoder", lambda _, **__: scorer)
    settings = RerankerSettings(name="tiny", kind="cross-encoder", batching=BATCHING)
    reranker = await started(Reranker, settings, tmp_path)
    reranker.scorer = scorer
    yield reranker
    await stop(reranker)


def ranking(ids: list[int], *, batch_size: int = 100, timeout_s: float = 10.0) -> RankRequest:
    candidates = TokenBatch.of_rows([np.full(3, i, np.int32) for i in ids])
    return RankRequest(np.empty(0, np.int32), candidates, 1, timeout_s, batch_size)


async def test_a_reranker_scores_in_order_and_names_the_candidate_that_fails(
    reranker: Any, metrics: dict[str, FakeMetric]
) -> None:
    scores = await asyncio.wait_for(reranker.rank(ranking([7, BAD, 9, 8])), 10)
    assert scores.values.tolist() == [7, 0, 9, 8]
    assert [(failure.index, failure.code) for failure in scores.failures] == [(1, NonFiniteError.code)]
    assert metrics["retrieval_text_failures"].values == [(1, {"model": "tiny", "code": NonFiniteError.code})]


async def test_no_more_candidates_of_a_request_share_a_forward_than_its_batch_size(reranker: Any) -> None:
    await asyncio.wait_for(reranker.rank(ranking([1] * 9, batch_size=2)), 10)
    assert max(reranker.scorer.forwards) == 2


async def test_a_deadline_is_an_answer_about_the_candidates(reranker: Any) -> None:
    scores = await asyncio.wait_for(reranker.rank(ranking([1], timeout_s=0.0)), 10)
    assert [failure.code for failure in scores.failures] == [DeadlineError.code]
    assert QUERY not in [failure.index for failure in scores.failures]
    await reranker.check_health()
    assert ReplicaState("cpu", "float32", (await reranker.state()).threads) == await reranker.state()
