"""From token states to representations, each beside a loop that computes the same in float64."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.errors import ModelLoadError
from serve_app.domain.profiles import Pooling
from serve_app.models.backbone.encoder_output import EncoderOutput
from serve_app.models.head_files import COLBERT_FILE, SPARSE_FILE
from serve_app.models.heads import TokenHeads, max_weight_per_token, pooled

WIDTH, DIMENSION = 8, 5
LENGTHS = (4, 1, 7, 2)
TOLERANCE = 1e-6  # float32 against float64
CPU = torch.device("cpu")

weights_of_tokens = st.lists(
    st.tuples(st.integers(0, 9), st.floats(0, 5, width=32, allow_nan=False)), min_size=1, max_size=30
)  # few ids, so that many are there twice


def hidden(lengths: Sequence[int] = LENGTHS, dtype: torch.dtype = torch.float32) -> EncoderOutput:
    """Random states."""
    states = torch.randn(sum(lengths), WIDTH, generator=torch.Generator().manual_seed(1))
    return EncoderOutput(states.to(dtype), np.array(lengths))


def texts_of(output: EncoderOutput) -> tuple[torch.Tensor, ...]:
    """The states of each text."""
    return output.states.split(output.lengths.tolist())


def write_heads(folder: Path, seed: int = 0) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    torch.manual_seed(seed)
    sparse, colbert = torch.nn.Linear(WIDTH, 1), torch.nn.Linear(WIDTH, DIMENSION)
    torch.save(sparse.state_dict(), folder / SPARSE_FILE)
    torch.save(colbert.state_dict(), folder / COLBERT_FILE)
    return sparse, colbert


@pytest.fixture
def heads(tmp_path: Path) -> TokenHeads:
    write_heads(tmp_path)
    return TokenHeads.load(tmp_path, WIDTH, CPU)


def unit(vector: Sequence[float]) -> list[float]:
    norm = math.sqrt(sum(x * x for x in vector))
    return [x / norm for x in vector]


def applied(layer: torch.nn.Linear, state: torch.Tensor) -> list[float]:
    """One row through a linear layer."""
    weight, bias, x = layer.weight.tolist(), layer.bias.tolist(), state.tolist()
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


# ------------------------------------------------------------------ dense


@pytest.mark.parametrize("lengths", [LENGTHS, (3, 3), (1,)])
def test_mean_pooling_is_the_mean_of_the_real_tokens(lengths: tuple[int, ...]) -> None:
    found = hidden(lengths)
    expected = [
        unit([sum(column) / len(states) for column in zip(*states.tolist(), strict=True)]) for states in texts_of(found)
    ]
    np.testing.assert_allclose(pooled(found, Pooling.MEAN), expected, atol=TOLERANCE)


@pytest.mark.parametrize("lengths", [LENGTHS, (3, 3), (1,)])
def test_cls_pooling_is_the_first_token(lengths: tuple[int, ...]) -> None:
    found = hidden(lengths)
    expected = [unit(states[0].tolist()) for states in texts_of(found)]
    np.testing.assert_allclose(pooled(found, Pooling.CLS), expected, atol=TOLERANCE)


@pytest.mark.parametrize("pooling", Pooling)
def test_pooling_computes_in_float32_for_states_of_any_dtype(pooling: Pooling) -> None:
    rounded = hidden(dtype=torch.bfloat16)
    exact = EncoderOutput(rounded.states.float(), rounded.lengths)
    assert pooled(rounded, pooling).dtype == torch.float32
    assert torch.equal(pooled(rounded, pooling), pooled(exact, pooling))


# ------------------------------------------------------------------ sparse and ColBERT


def test_the_weight_of_a_token_is_the_layer_s_output_and_never_negative(heads: TokenHeads) -> None:
    found = hidden()
    weights = heads.token_weights(found)
    assert weights.dtype == torch.float32
    expected = [max(0.0, *applied(heads.sparse, state)) for state in found.states]
    np.testing.assert_allclose(weights, expected, atol=TOLERANCE)
    assert (weights == 0).any(), "some are below zero, or this test says nothing"


@pytest.mark.parametrize("wanted", [None, (True, False, True, True), (False, True, False, False)])
def test_token_vectors_are_those_of_all_tokens_but_the_first(heads: TokenHeads, wanted: Sequence[bool] | None) -> None:
    found = hidden()
    vectors = heads.token_vectors(found, None if wanted is None else np.array(wanted))
    texts = [text for text, is_wanted in zip(texts_of(found), wanted or [True] * 4, strict=True) if is_wanted]
    expected = [unit(applied(heads.colbert, state)) for text in texts for state in text[1:]]
    assert vectors.dtype == torch.float32
    np.testing.assert_allclose(vectors, np.reshape(expected, (-1, DIMENSION)), atol=TOLERANCE)


def test_heads_compute_in_float32_for_states_of_any_dtype(heads: TokenHeads) -> None:
    rounded = hidden(dtype=torch.bfloat16)
    exact = EncoderOutput(rounded.states.float(), rounded.lengths)
    assert torch.equal(heads.token_weights(rounded), heads.token_weights(exact))
    assert torch.equal(heads.token_vectors(rounded), heads.token_vectors(exact))


@given(st.lists(weights_of_tokens, min_size=1, max_size=5))
def test_the_largest_weight_of_each_token_is_kept_and_tokens_without_weight_are_not(
    texts: list[list[tuple[int, float]]],
) -> None:
    ids = np.array([i for text in texts for i, _ in text], np.int32)
    weights = np.array([w for text in texts for _, w in text], np.float32)
    found = max_weight_per_token(ids, weights, np.array([len(text) for text in texts]))
    assert [ragged.values.dtype for ragged in found] == [np.int32, np.float32]
    for text, found_ids, found_weights in zip(texts, found[0].rows(), found[1].rows(), strict=True):
        largest: dict[int, float] = {}
        for id, weight in text:
            largest[id] = max(weight, largest.get(id, 0.0))
        expected = {i: w for i, w in sorted(largest.items()) if w > 0}
        assert dict(zip(found_ids.tolist(), found_weights.tolist(), strict=True)) == expected


# ------------------------------------------------------------------ files


def test_heads_are_those_of_the_files(tmp_path: Path) -> None:
    sparse, colbert = write_heads(tmp_path)
    found = TokenHeads.load(tmp_path, WIDTH, CPU)
    for layer, expected in ((found.sparse, sparse), (found.colbert, colbert)):
        assert torch.equal(layer.weight, expected.weight)
        assert torch.equal(layer.bias, expected.bias)
        assert not layer.weight.requires_grad
    assert found.hidden_size == WIDTH


@pytest.fixture
def _default_is_bfloat16() -> Iterator[None]:
    """As transformers has it, for all threads, while it loads a model."""
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_default_is_bfloat16")
def test_heads_are_not_rounded_while_a_bfloat16_model_is_loaded_beside_them(tmp_path: Path) -> None:
    weight = torch.tensor([[1 + 2**-20] * WIDTH], dtype=torch.float32)
    for file in (SPARSE_FILE, COLBERT_FILE):
        torch.save({"weight": weight, "bias": weight[:, 0]}, tmp_path / file)
    found = TokenHeads.load(tmp_path, WIDTH, CPU)
    assert torch.equal(found.sparse.weight, weight)
    assert torch.equal(found.colbert.bias, weight[:, 0])


@pytest.mark.parametrize("file", [SPARSE_FILE, COLBERT_FILE])
def test_the_error_for_a_missing_head_names_the_next_step(tmp_path: Path, file: str) -> None:
    write_heads(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(ModelLoadError, match="is missing: copy") as caught:
        TokenHeads.load(tmp_path, WIDTH, CPU)
    assert str(tmp_path / file) in caught.value.message
    assert "dense_only: true" in caught.value.message


class Trap:
    """Whoever unpickles it and lets it do what it wants makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self._path,))


def test_a_head_with_code_in_it_is_an_error_and_nothing_runs(tmp_path: Path) -> None:
    write_heads(tmp_path)
    torch.save({"weight": torch.ones(1, WIDTH), "bias": Trap(tmp_path / "ran")}, tmp_path / SPARSE_FILE)
    with pytest.raises(ModelLoadError, match="cannot be read as a linear layer"):
        TokenHeads.load(tmp_path, WIDTH, CPU)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", [SPARSE_FILE, COLBERT_FILE])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a head",
        pickle.dumps({"weight": [[1.0] * WIDTH], "bias": [0.0]}),
        {"weight": torch.ones(1, WIDTH + 1), "bias": torch.ones(1)},
        {"weight": torch.ones(1, WIDTH)},
        {"bias": torch.ones(1)},
        torch.ones(1, WIDTH),
    ],
    ids=["empty", "text", "lists", "wide", "no bias", "no weight", "tensor"],
)
def test_a_corrupt_head_is_an_error(tmp_path: Path, file: str, content: object) -> None:
    write_heads(tmp_path)
    if isinstance(content, bytes):
        (tmp_path / file).write_bytes(content)
    else:
        torch.save(content, tmp_path / file)
    with pytest.raises(ModelLoadError, match=f"cannot be read as a linear layer over {WIDTH} numbers") as caught:
        TokenHeads.load(tmp_path, WIDTH, CPU)
    assert str(tmp_path / file) in caught.value.message
    assert "\n" not in caught.value.message
