"""The heads' files, and the representations that they make of token states."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch.nn import functional

from serve_app.domain.errors import ModelLoadError
from serve_app.models.head_files import HEAD_FILES
from training.losses.m3_heads import M3Heads, M3Vectors, represent, special_ids_of

FILES = HEAD_FILES
TEXTS = (
    "open the file",
    "read the lines of the file, and the next line, until the end of the file",  # words are repeated
    "a",
    "𓀀 is a letter that the vocabulary does not have",
)


def read(folder: Path, name: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / name, weights_only=True)
    return state


def copied(folder: Path, tmp_path: Path) -> Path:
    for name in FILES:
        shutil.copy(folder / name, tmp_path)
    return tmp_path


# ------------------------------------------------------------------ files


def test_heads_are_saved_as_they_were_loaded_and_readable_for_all(bge_m3_tiny: Path, tmp_path: Path) -> None:
    M3Heads.load(bge_m3_tiny).save(tmp_path)
    for name in FILES:
        saved, original = read(tmp_path, name), read(bge_m3_tiny, name)
        assert saved.keys() == original.keys() == {"weight", "bias"}
        assert all(torch.equal(saved[key], original[key]) for key in saved)
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o644


def test_heads_stored_in_half_precision_are_trained_in_float32(bge_m3_tiny: Path, tmp_path: Path) -> None:
    for name in FILES:
        torch.save({key: value.half() for key, value in read(bge_m3_tiny, name).items()}, tmp_path / name)
    heads = M3Heads.load(tmp_path)
    assert {parameter.dtype for parameter in heads.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in heads.parameters())
    torch.testing.assert_close(heads.sparse_linear.weight, M3Heads.load(bge_m3_tiny).sparse_linear.weight, rtol=1e-3,
                               atol=1e-4)  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_the_error_for_a_missing_head_names_the_next_step(bge_m3_tiny: Path, tmp_path: Path, name: str) -> None:
    (copied(bge_m3_tiny, tmp_path) / name).unlink()
    with pytest.raises(ModelLoadError, match=f"{name} is missing: copy .* of the original BAAI/bge-m3"):
        M3Heads.load(tmp_path)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def replaced(state: object) -> Callable[[Path], None]:
    return lambda path: torch.save(state, path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"),
        replaced([1, 2]),
        replaced({"weight": torch.ones(1, 32)}),
        replaced({"weight": torch.ones(1, 32), "bias": torch.ones(2)}),
        replaced({"weight": torch.full((1, 32), torch.nan), "bias": torch.ones(1)}),
    ],
    ids=["cut", "empty", "pointer", "list", "no bias", "bias too long", "not finite"],
)
def test_a_damaged_head_is_refused(bge_m3_tiny: Path, tmp_path: Path, name: str, damage: Callable[[Path], Any]) -> None:
    damage(copied(bge_m3_tiny, tmp_path) / name)
    with pytest.raises(ModelLoadError, match=f"{name} .*copy it from the original model again") as caught:
        M3Heads.load(tmp_path)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("shape", [(2, 32), (1, 16)], ids=["two outputs", "another width"])
def test_heads_that_do_not_fit_together_are_refused(bge_m3_tiny: Path, tmp_path: Path, shape: tuple[int, int]) -> None:
    state = {"weight": torch.ones(shape), "bias": torch.ones(shape[0])}
    torch.save(state, copied(bge_m3_tiny, tmp_path) / "sparse_linear.pt")
    with pytest.raises(ModelLoadError, match=r"sparse_linear\.pt .*copy it from the original model again"):
        M3Heads.load(tmp_path)


# ------------------------------------------------------------------ representations


@pytest.fixture(scope="module")
def model(bge_m3_tiny: Path) -> SentenceTransformer:
    return SentenceTransformer(str(bge_m3_tiny), device="cpu").eval()


@pytest.fixture(scope="module")
def heads(bge_m3_tiny: Path) -> M3Heads:
    return M3Heads.load(bge_m3_tiny)


@torch.no_grad()
def vectors_of(model: SentenceTransformer, heads: M3Heads, *texts: str) -> M3Vectors:
    return represent(model(model.preprocess(list(texts))), heads, special_ids_of(model))


def test_each_text_has_the_vectors_that_it_has_alone(model: SentenceTransformer, heads: M3Heads) -> None:
    """Without padding, from the transformer's own states: dense of the first token, the rest of all others."""
    together = vectors_of(model, heads, *TEXTS)
    colbert, sparse = heads.colbert_linear, heads.sparse_linear
    for n, text in enumerate(TEXTS):
        tokens = model.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            states = model[0].model(**tokens).last_hidden_state[0]
        mask = together.mask[n]
        expected = functional.normalize(states[1:] @ colbert.weight.T + colbert.bias, dim=-1)
        torch.testing.assert_close(together.colbert[n, mask], expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(together.dense[n], functional.normalize(states[0], dim=-1), rtol=0, atol=1e-5)
        assert together.ids[n, mask].tolist() == tokens["input_ids"][0, 1:].tolist()
        weights = (states[1:] @ sparse.weight[0] + sparse.bias).clamp(min=0)
        weights[together.ids[n, mask] <= 3] = 0  # <s>, <pad>, </s>, <unk>
        torch.testing.assert_close(together.weights[n, mask], weights, rtol=0, atol=1e-5)
        assert (together.weights[n, ~mask] == 0).all()


def test_special_and_unknown_tokens_have_no_sparse_weight_and_words_have(
    model: SentenceTransformer, heads: M3Heads
) -> None:
    forced = M3Heads(heads.colbert_linear, torch.nn.Linear(32, 1))
    with torch.no_grad():
        forced.sparse_linear.weight.zero_()
        forced.sparse_linear.bias.fill_(1.0)  # each token that may have a weight has this one
    found = vectors_of(model, forced, *TEXTS)
    special = torch.isin(found.ids, torch.tensor([0, 1, 2, 3]))
    assert 3 in found.ids
    assert torch.equal(found.weights, (~special).float())


def test_heads_compute_in_float32_under_autocast(heads: M3Heads) -> None:
    states = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(0))
    exact = heads(states)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = heads(states)
    for ours, expected in zip(mixed, exact, strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, expected)
