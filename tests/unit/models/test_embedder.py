"""One forward, several representations: each text gets what it asked for, and the same as alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from serve_app.domain.embeddings import DENSE, Encoded, Int32
from serve_app.domain.errors import NonFiniteError, ServiceError
from serve_app.domain.profiles import Capability
from serve_app.models.backbone.encoder_output import EncoderOutput
from serve_app.models.embedder import EmbeddingModel, TextToEncode
from serve_app.models.heads import TokenHeads
from serve_app.models.loader import load_model
from serve_app.models.model_source import describe

SPARSE = DENSE | {Capability.SPARSE}
COLBERT = DENSE | {Capability.COLBERT}
ALL = SPARSE | COLBERT
WANTS = (DENSE, ALL, SPARSE, COLBERT, DENSE, ALL)
ROWS: list[Int32] = [
    np.array([0, *ids, 2], np.int32)
    for ids in ([10, 11], [12], [13, 14, 13, 13, 15], [16, 17, 18, 19, 20, 21, 22, 23, 24], [25, 25], [])
]
POISONED = 7  # the length of the third text, and of no other
TOLERANCE = 1e-5  # padding changes the order of sums in float32, nothing else


@pytest.fixture(scope="module")
def tiny(bge_m3_tiny: Path) -> EmbeddingModel:
    return load_model(describe("bge-m3-tiny", bge_m3_tiny), device="cpu", dtype="float32")


def with_heads(model: EmbeddingModel, heads: TokenHeads) -> EmbeddingModel:
    return EmbeddingModel(model.transformer, model.pooling, heads)


def asked(wants: Sequence[frozenset[Capability]] = WANTS) -> list[TextToEncode]:
    return [TextToEncode(ids, want) for ids, want in zip(ROWS, wants, strict=True)]


def encoded(results: Sequence[Encoded | ServiceError]) -> list[Encoded]:
    assert all(isinstance(result, Encoded) for result in results), results
    return [result for result in results if isinstance(result, Encoded)]


def assert_same(found: Encoded, expected: Encoded) -> None:
    np.testing.assert_allclose(found.dense, expected.dense, atol=TOLERANCE)
    assert (found.sparse is None, found.colbert is None) == (expected.sparse is None, expected.colbert is None)
    if found.sparse is not None and expected.sparse is not None:
        assert found.sparse[0].tolist() == expected.sparse[0].tolist()
        np.testing.assert_allclose(found.sparse[1], expected.sparse[1], atol=TOLERANCE)
    if found.colbert is not None and expected.colbert is not None:
        np.testing.assert_allclose(found.colbert, expected.colbert, atol=TOLERANCE)


def test_texts_of_one_micro_batch_that_want_different_things_have_what_they_have_alone(tiny: EmbeddingModel) -> None:
    together = encoded(tiny.encode(asked()))
    alone = [encoded(tiny.encode([text]))[0] for text in asked()]
    for found, expected in zip(together, alone, strict=True):
        assert_same(found, expected)


def test_each_text_gets_what_it_wants_and_nothing_else(tiny: EmbeddingModel) -> None:
    for text, result in zip(asked(), encoded(tiny.encode(asked())), strict=True):
        assert (result.sparse is not None) == (Capability.SPARSE in text.want)
        assert (result.colbert is not None) == (Capability.COLBERT in text.want)


def test_representations_have_the_documented_shapes_types_and_lengths(tiny: EmbeddingModel) -> None:
    for ids, result in zip(ROWS, encoded(tiny.encode(asked([ALL] * len(ROWS)))), strict=True):
        assert result.sparse is not None
        assert result.colbert is not None
        found, weights = result.sparse
        assert (result.dense.shape, result.dense.dtype) == ((32,), np.float32)
        assert (result.colbert.shape, result.colbert.dtype) == ((len(ids) - 1, 32), np.float32)
        np.testing.assert_allclose(np.linalg.norm(result.dense), 1, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(result.colbert, axis=1), 1, atol=1e-6)
        assert set(found.tolist()) <= set(ids.tolist())
        assert len(set(found.tolist())) == len(found) == len(weights)
        assert (found.dtype, weights.dtype) == (np.int32, np.float32)
        assert (weights > 0).all()


def test_token_vectors_are_the_colbert_vectors(tiny: EmbeddingModel) -> None:
    expected = encoded(tiny.encode(asked([COLBERT] * len(ROWS))))
    colbert = [result.colbert for result in expected if result.colbert is not None]
    np.testing.assert_allclose(tiny.token_vectors(ROWS), np.concatenate(colbert), atol=TOLERANCE)


def test_a_text_may_have_its_vector_as_pooled_and_the_states_of_its_tokens_beside_others(tiny: EmbeddingModel) -> None:
    wants = [DENSE | {Capability.UNNORMALIZED}, DENSE, DENSE | {Capability.TOKEN_STATES}, ALL, ALL, DENSE]
    results = encoded(tiny.encode(asked(wants)))
    expected = encoded(tiny.encode(asked([DENSE] * len(ROWS))))
    norms = [float(np.linalg.norm(result.dense)) for result in results]
    assert abs(norms[0] - 1) > 0.1
    np.testing.assert_allclose(norms[1:], 1, atol=1e-6)
    np.testing.assert_allclose(results[0].dense / norms[0], expected[0].dense, atol=TOLERANCE)
    assert [result.states is None for result in results] == [True, True, False, True, True, True]
    assert results[2].states is not None
    assert results[2].states.shape == (len(ROWS[2]), 32)
    first = results[2].states[0]  # this family pools the first token
    np.testing.assert_allclose(first / np.linalg.norm(first), expected[2].dense, atol=TOLERANCE)


# ------------------------------------------------------------------ heads that must be left alone


class Untouchable(TokenHeads):
    """Heads that nobody may use."""

    def __init__(self) -> None:
        pass

    def token_weights(self, hidden: EncoderOutput) -> NoReturn:
        raise AssertionError("the sparse head is used")

    def token_vectors(self, hidden: EncoderOutput, texts: object = None) -> NoReturn:
        raise AssertionError("the ColBERT head is used")


def test_dense_vectors_alone_never_touch_the_heads(tiny: EmbeddingModel) -> None:
    results = encoded(with_heads(tiny, Untouchable()).encode(asked([DENSE] * len(ROWS))))
    for found, expected in zip(results, encoded(tiny.encode(asked())), strict=True):
        np.testing.assert_allclose(found.dense, expected.dense, atol=TOLERANCE)


def test_a_head_that_is_not_requested_is_not_computed(tiny: EmbeddingModel) -> None:
    class NoSparse(TokenHeads):
        def token_weights(self, hidden: EncoderOutput) -> NoReturn:
            raise AssertionError("the sparse head is used")

    class NoColbert(TokenHeads):
        def token_vectors(self, hidden: EncoderOutput, texts: object = None) -> NoReturn:
            raise AssertionError("the ColBERT head is used")

    assert tiny.heads is not None
    for kind, want in ((NoSparse, COLBERT), (NoColbert, SPARSE)):
        heads = kind(tiny.heads.sparse, tiny.heads.colbert)
        encoded(with_heads(tiny, heads).encode(asked([want, DENSE, want, DENSE, want, DENSE])))


# ------------------------------------------------------------------ what fails, fails alone


class Poisoned(TokenHeads):
    """Heads with a number that is none in what they say of one text."""

    poison = float("nan")
    kinds = ALL

    def token_weights(self, hidden: EncoderOutput) -> torch.Tensor:
        weights = super().token_weights(hidden).clone()
        if Capability.SPARSE in self.kinds:
            for start in hidden.offsets[:-1][hidden.lengths == POISONED]:
                weights[start + 1] = self.poison
        return weights

    def token_vectors(self, hidden: EncoderOutput, texts: NDArray[np.bool_] | None = None) -> torch.Tensor:
        assert texts is not None
        vectors = super().token_vectors(hidden, texts).clone()
        lengths = hidden.lengths[texts]
        if Capability.COLBERT in self.kinds:
            for start in (np.cumsum(lengths - 1) - (lengths - 1))[lengths == POISONED]:
                vectors[start + 1, 3] = self.poison
        return vectors


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [Capability.SPARSE, Capability.COLBERT])
def test_a_text_for_which_a_head_computes_no_number_fails_alone(
    tiny: EmbeddingModel, kind: Capability, poison: float
) -> None:
    assert tiny.heads is not None
    heads = Poisoned(tiny.heads.sparse, tiny.heads.colbert)
    heads.poison, heads.kinds = poison, frozenset({kind})
    texts = asked([ALL] * len(ROWS))
    results = with_heads(tiny, heads).encode(texts)
    assert [i for i, result in enumerate(results) if isinstance(result, NonFiniteError)] == [2]
    expected = encoded(tiny.encode(texts))
    for i in (0, 1, 3, 4, 5):
        assert_same(encoded([results[i]])[0], expected[i])


def test_a_text_that_did_not_ask_the_broken_head_does_not_fail(tiny: EmbeddingModel) -> None:
    assert tiny.heads is not None
    heads = Poisoned(tiny.heads.sparse, tiny.heads.colbert)
    heads.kinds = frozenset({Capability.COLBERT})
    for found, expected in zip(
        encoded(with_heads(tiny, heads).encode(asked([ALL, ALL, SPARSE, ALL, ALL, ALL]))),
        encoded(tiny.encode(asked([ALL, ALL, SPARSE, ALL, ALL, ALL]))),
        strict=True,
    ):
        assert_same(found, expected)


def test_a_text_that_is_not_computed_names_no_neighbour(tiny: EmbeddingModel) -> None:
    beyond = TextToEncode(np.array([0, 10**6, 2], np.int32), ALL)  # no such row in the embedding table
    results = tiny.encode([*asked()[:2], beyond, *asked()[2:]])
    assert isinstance(results.pop(2), ServiceError)
    for found, expected in zip(encoded(results), encoded(tiny.encode(asked())), strict=True):
        assert_same(found, expected)
