"""A tiny random cross-encoder; transformers' own model on a padded batch is the oracle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from serve_app.domain.embeddings import Int32
from serve_app.domain.errors import InternalError, ModelLoadError, NonFiniteError, OutOfMemoryError
from serve_app.models.backbone import padded
from serve_app.models.backbone.padded import pad
from serve_app.models.cross_encoder import CrossEncoder
from serve_app.models.tokenizer import TextTokenizer
from tests.tiny_models import build_reranker_tiny

QUERY = "how do I read a file?"
CANDIDATES = (
    "Open the file and iterate over it line by line; each line ends with a newline.",
    "a",
    "Größe der Straße",
    "敏捷的狐狸跳过了懒狗。",
    "a sentence that is repeated until it is long " * 6,
    "Close it.",
)
OTHER_QUERY = "what does a fox do?"
CPU = torch.device("cpu")
TOLERANCE = 1e-5  # padding changes the order of sums in float32, nothing else


def load(folder: Path, dtype: torch.dtype = torch.float32) -> CrossEncoder:
    return CrossEncoder(folder, device=CPU, dtype=dtype, threads=1)


def scores(model: CrossEncoder, pairs: Sequence[Int32]) -> list[float]:
    results = model.forward(pairs)
    assert all(type(result) is float for result in results), results
    return results  # type: ignore[return-value]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "reranker-tiny"
    build_reranker_tiny(folder)
    return folder


@pytest.fixture
def model(folder: Path) -> CrossEncoder:
    return load(folder)


@pytest.fixture(scope="module")
def pairs(folder: Path) -> list[Int32]:
    """The candidates with the one query, then with the other: two requests."""
    tokenizer = TextTokenizer(folder, 512)
    return [
        *tokenizer.pairs(QUERY, CANDIDATES).batch().rows(),
        *tokenizer.pairs(OTHER_QUERY, CANDIDATES).batch().rows(),
    ]


@pytest.fixture(scope="module")
def oracle(folder: Path) -> list[float]:
    """The logits of ``pairs``: transformers' tokenizer, its padding and its model, in one batch."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    queries = [QUERY] * len(CANDIDATES) + [OTHER_QUERY] * len(CANDIDATES)
    batch = tokenizer(queries, list(CANDIDATES) * 2, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits: list[float] = model.eval()(**batch).logits[:, 0].tolist()
    return logits


def test_logits_equal_those_of_transformers(model: CrossEncoder, pairs: list[Int32], oracle: list[float]) -> None:
    np.testing.assert_allclose(scores(model, pairs), oracle, atol=TOLERANCE)


def test_the_oracle_distinguishes_pairs(oracle: list[float]) -> None:
    """So that the agreement above means something."""
    assert np.diff(np.sort(oracle)).min() > 100 * TOLERANCE


def test_a_score_does_not_depend_on_the_neighbours_or_their_order(
    model: CrossEncoder, pairs: list[Int32], oracle: list[float]
) -> None:
    alone = [score for pair in pairs for score in scores(model, [pair])]
    np.testing.assert_allclose(alone, oracle, atol=TOLERANCE)
    order = np.random.default_rng(0).permutation(len(pairs))
    np.testing.assert_allclose(scores(model, [pairs[i] for i in order]), np.take(oracle, order), atol=TOLERANCE)


def test_bfloat16_is_near(folder: Path, pairs: list[Int32], oracle: list[float]) -> None:
    model = load(folder, torch.bfloat16)
    assert {parameter.dtype for parameter in model.body.parameters()} == {torch.bfloat16}
    # 8 bits of each number: 0.004 of it in every step, and the same order of pairs that differ by more
    np.testing.assert_allclose(scores(model, pairs), oracle, atol=0.06)
    assert np.corrcoef(scores(model, pairs), oracle)[0, 1] > 0.98


def test_in_bfloat16_the_head_computes_in_float32_so_near_candidates_keep_scores_of_their_own(folder: Path) -> None:
    draw = np.random.default_rng(0)
    near = [np.array([0, 10, 2, 2, *draw.integers(5, 500, 3), 2], np.int32) for _ in range(100)]
    found = np.array(scores(load(folder, torch.bfloat16), near))
    assert len(set(found.tolist())) >= 95
    in_bfloat16 = torch.tensor(found).to(torch.bfloat16)
    assert len(set(in_bfloat16.tolist())) < 80, "these scores are near enough to tell"


def test_nothing_is_scored_for_nothing(model: CrossEncoder) -> None:
    assert model.forward([]) == []


# ------------------------------------------------------------------ what fails, fails alone


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("at", [0, 2, 6])
def test_a_pair_without_a_finite_score_fails_alone(
    model: CrossEncoder, pairs: list[Int32], oracle: list[float], value: float, at: int
) -> None:
    poison = max(set(range(2000)) - {int(token) for pair in pairs for token in pair})
    with torch.no_grad():
        model.body.get_input_embeddings().weight[poison] = value
    broken = np.array([0, 10, 2, 2, poison, 2], np.int32)
    results = model.forward([*pairs[:at], broken, *pairs[at:]])
    assert isinstance(results.pop(at), NonFiniteError)
    np.testing.assert_allclose(results, oracle, atol=TOLERANCE)  # type: ignore[arg-type]


def test_a_pair_that_torch_cannot_compute_fails_alone(
    model: CrossEncoder, pairs: list[Int32], oracle: list[float]
) -> None:
    beyond = np.array([0, 10**6, 2, 2, 5, 2], np.int32)  # no such row in the embedding table
    results = model.forward([*pairs[:3], beyond, *pairs[3:]])
    assert isinstance(results.pop(3), InternalError)
    np.testing.assert_allclose(results, oracle, atol=TOLERANCE)  # type: ignore[arg-type]


@pytest.mark.parametrize("fits", [5, 1, 0])
def test_a_batch_without_memory_is_split_until_it_fits(
    model: CrossEncoder, pairs: list[Int32], oracle: list[float], monkeypatch: pytest.MonkeyPatch, fits: int
) -> None:
    def limited(texts: Sequence[Int32], device: torch.device) -> Any:
        if len(texts) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return pad(texts, device)

    monkeypatch.setattr(padded, "pad", limited)
    results = model.forward(pairs)
    if fits:
        np.testing.assert_allclose(results, oracle, atol=TOLERANCE)  # type: ignore[arg-type]
    else:
        assert all(isinstance(result, OutOfMemoryError) for result in results)


# ------------------------------------------------------------------ folders that are no reranker


def without_the_head(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    body = {name: value for name, value in state.items() if not name.startswith("classifier.out_proj")}
    save_file(body, folder / "model.safetensors", metadata={"format": "pt"})


def of_an_encoder(folder: Path) -> None:
    """As if somebody named an embedding model: a body without any head."""
    state = load_file(folder / "model.safetensors")
    body = {name.removeprefix("roberta."): value for name, value in state.items() if name.startswith("roberta.")}
    save_file(body, folder / "model.safetensors", metadata={"format": "pt"})


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def of_another_width(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))


def of_three_labels(folder: Path) -> None:
    build_reranker_tiny(folder, labels=3)


def of_bert(folder: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertForSequenceClassification(BertConfig(vocab_size=10, num_labels=1, **sizes)).save_pretrained(folder)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (without_the_head, r"lack 2 tensors, among them 'classifier\.out_proj\.bias'"),
        (of_an_encoder, r"lack 4 tensors, among them 'classifier\.dense\.bias'"),
        (without_weights, "cannot be loaded"),
        (of_another_width, "cannot be loaded"),
        (of_three_labels, "has 3 labels; a reranker has 1"),
        (of_bert, "is a cross-encoder of type 'bert'; served are: xlm-roberta, roberta"),
    ],
)
def test_an_incomplete_reranker_is_an_error(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    damage(copy)
    with pytest.raises(ModelLoadError, match=says) as caught:
        load(copy)
    assert str(copy) in caught.value.message
    assert "\n" not in caught.value.message


def test_the_number_of_threads_is_the_configured_one(folder: Path) -> None:
    before = torch.get_num_threads()
    try:
        CrossEncoder(folder, device=CPU, dtype=torch.float32, threads=3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
