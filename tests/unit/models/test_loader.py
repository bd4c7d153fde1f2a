"""A loaded model: what fails, fails for the text that caused it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from serve_app.domain.embeddings import Float32, Int32
from serve_app.domain.errors import InternalError, ModelLoadError, NonFiniteError, OutOfMemoryError, ServiceError
from serve_app.models.backbone.encoder_output import EncoderOutput
from serve_app.models.embedder import EmbeddingModel, TextToEncode
from serve_app.models.heads import pooled
from serve_app.models.loader import load_model
from serve_app.models.model_source import describe

A, B, C, POISON = (np.array([0, *ids, 2], np.int32) for ids in ([10, 11], [12], [13, 14, 15, 16], [13, 99, 15]))


@pytest.fixture
def model(e5_tiny: Path) -> EmbeddingModel:
    return load_model(describe("e5-tiny", e5_tiny), device="cpu", dtype="float32", threads=1)


def embed(model: EmbeddingModel, texts: Sequence[Int32]) -> list[Float32 | ServiceError]:
    results = model.encode([TextToEncode(text) for text in texts])
    return [result if isinstance(result, ServiceError) else result.dense for result in results]


def poison(model: EmbeddingModel, value: float) -> None:
    """Breaks the embedding of token 99."""
    with torch.no_grad():
        model.transformer._model.get_input_embeddings().weight[99] = value


def test_vectors_are_those_of_the_transformer_in_order(model: EmbeddingModel) -> None:
    expected = pooled(model.transformer.hidden([A, B, C]), model.pooling).numpy()
    results = embed(model, [A, B, C])
    assert all(isinstance(result, np.ndarray) for result in results)
    np.testing.assert_array_equal(np.stack(results), expected)  # type: ignore[arg-type]


def test_nothing_is_embedded_for_nothing(model: EmbeddingModel) -> None:
    assert embed(model, []) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_text_without_a_finite_vector_fails_alone(model: EmbeddingModel, value: float, at: int) -> None:
    healthy = embed(model, [A, B, C])
    poison(model, value)
    texts = [A, B, C]
    texts.insert(at, POISON)
    results = embed(model, texts)
    assert isinstance(results.pop(at), NonFiniteError)
    for result, expected in zip(results, healthy, strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-6)  # type: ignore[arg-type]


def test_a_text_that_torch_cannot_compute_fails_alone(model: EmbeddingModel) -> None:
    beyond = np.array([0, 10**6, 2], np.int32)  # no such row in the embedding table
    results = embed(model, [A, beyond, B])
    assert isinstance(results[1], InternalError)
    np.testing.assert_allclose(results[0], embed(model, [A])[0], atol=1e-6)  # type: ignore[arg-type]
    np.testing.assert_allclose(results[2], embed(model, [B])[0], atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize(("fits", "failed"), [(2, []), (1, []), (0, [0, 1, 2])])
def test_a_batch_without_memory_is_split_after_memory_was_released(
    model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch, fits: int, failed: list[int]
) -> None:
    hidden, released = model.transformer.hidden, []

    def limited(texts: Sequence[Int32], adapter: str | None = None) -> EncoderOutput:
        if len(texts) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return hidden(texts, adapter)

    monkeypatch.setattr(model.transformer, "hidden", limited)
    monkeypatch.setattr(model.transformer, "release_memory", lambda: released.append(1))
    results = embed(model, [A, B, C])
    assert [i for i, result in enumerate(results) if isinstance(result, OutOfMemoryError)] == failed
    assert released


@pytest.mark.parametrize(
    ("built_for", "visible", "reason"),
    [
        (None, 0, "is built without CUDA; install one that is built with it, or set `device: cpu`"),
        ("13.0", 0, "sees no GPU; it needs a driver for CUDA 13.0 or newer"),
        ("13.0", 1, "1 CUDA devices are visible to this replica"),
    ],
)
def test_a_device_that_is_absent_refuses_to_load_and_says_what_is_missing(
    e5_tiny: Path, monkeypatch: pytest.MonkeyPatch, built_for: str | None, visible: int, reason: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    with pytest.raises(ModelLoadError, match="device 'cuda:1' cannot be used") as failed:
        load_model(describe("e5-tiny", e5_tiny), device="cuda:1")
    assert reason in str(failed.value)
