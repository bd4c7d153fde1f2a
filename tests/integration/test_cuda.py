"""What only a real GPU shows: its vectors are those of the CPU, and a real lack of memory spoils no text that fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from serve_app.domain.embeddings import Encoded
from serve_app.domain.profiles import Capability
from serve_app.models.embedder import EmbeddingModel, TextToEncode
from serve_app.models.loader import load_model
from serve_app.models.model_source import find_model
from serve_app.models.tokenizer import TextTokenizer
from tests.conftest import M3
from tests.retrieval import DATA, load
from tests.service_process import STARTER, STARTER_FOLDER

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

CLOSEST = {"float32": 0.99999, "bfloat16": 0.9995}  # cosine with float32 on the CPU
SCORES = {"float32": 1e-4, "bfloat16": 0.02}  # of sparse weights, which are about 0.2
ALL = frozenset({Capability.DENSE, Capability.SPARSE, Capability.COLBERT})
MIB = 2**20


def texts(name: str, want: frozenset[Capability], count: int = 60) -> list[TextToEncode]:
    source = find_model(name, STARTER_FOLDER.parent)
    tokenised = TextTokenizer(source.folder, 512)(load(DATA / "debfaq-en").documents[:count])
    return [TextToEncode(row, want) for row in tokenised.batch().rows()]


def encoded(model: EmbeddingModel, asked: Sequence[TextToEncode]) -> list[Encoded]:
    found = model.encode(asked)
    assert all(isinstance(each, Encoded) for each in found)
    return [each for each in found if isinstance(each, Encoded)]


def starter(name: str, device: str, dtype: str) -> EmbeddingModel:
    return load_model(find_model(name, STARTER_FOLDER.parent), device=device, dtype=dtype, threads=2)


@pytest.fixture(scope="module")
def on_cpu() -> list[Encoded]:
    return encoded(starter(M3, "cpu", "float32"), texts(M3, ALL))


@pytest.mark.parametrize("dtype", CLOSEST)
def test_the_three_representations_of_a_gpu_are_those_of_the_cpu(on_cpu: list[Encoded], dtype: str) -> None:
    model = starter(M3, "cuda", dtype)
    assert model.transformer.device.type == "cuda"
    for here, there in zip(encoded(model, texts(M3, ALL)), on_cpu, strict=True):
        assert float(here.dense @ there.dense) > CLOSEST[dtype]
        assert here.colbert is not None
        assert there.colbert is not None
        assert (here.colbert * there.colbert).sum(axis=1).min() > 1 - 10 * (1 - CLOSEST[dtype])
        assert here.sparse is not None
        assert there.sparse is not None
        weights = dict(zip(*there.sparse, strict=True))
        for token, weight in zip(*here.sparse, strict=True):
            assert weight == pytest.approx(weights.get(token, 0.0), abs=SCORES[dtype])


def test_a_batch_that_does_not_fit_is_split_until_it_does() -> None:
    model = starter(STARTER, "cuda", "bfloat16")
    asked = 4 * texts(STARTER, frozenset({Capability.DENSE}))
    alone = np.array([encoded(model, [text])[0].dense for text in asked[:60]])
    model.release_memory()
    before = torch.cuda.memory_stats()["num_ooms"]
    with memory_for(150 * MIB):
        together = np.array([each.dense for each in encoded(model, asked)])
    assert torch.cuda.memory_stats()["num_ooms"] > before
    assert (together * np.tile(alone, (4, 1))).sum(axis=1).min() > CLOSEST["bfloat16"]


@contextmanager
def memory_for(room: int) -> Iterator[None]:
    """Nothing may be allocated beyond what is there now and ``room`` bytes."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + room) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
