"""Tokens to vectors, on the CPU, with tiny models. sentence-transformers on the same folder is the oracle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from serve_app.domain.embeddings import Float32, Int32
from serve_app.domain.errors import ModelLoadError
from serve_app.domain.profiles import Pooling
from serve_app.models import transformer as transformer_module
from serve_app.models.heads import pooled
from serve_app.models.model_source import ModelSource, describe
from serve_app.models.tokenizer import TextTokenizer
from serve_app.models.transformer import Transformer, choose_device, choose_dtype, computes_in_bfloat16

TEXTS = (
    "query: how do I read a file?",
    "passage: Open the file and iterate over it line by line; each line ends with a newline.",
    "query: Größe  der Straße",
    "query: 敏捷的狐狸",
    "a",
    "passage: " + "a sentence that is repeated until it is long " * 6,
)
CPU = torch.device("cpu")

# The least cosine between our vector and the oracle's in float32. bfloat16 keeps 8 bits of a number: a vector of
# 32 such numbers is off by about 1e-5 in cosine, and two layers add to it.
AGREEMENT = {torch.float32: 0.99999, torch.bfloat16: 0.9999}
# The least cosine between a text's vector alone and in company: padding changes the order of sums, nothing else.
INDEPENDENCE = {torch.float32: 1 - 1e-6, torch.bfloat16: 0.9999}


def load(folder: Path, dtype: torch.dtype = torch.float32, *, packed: bool = False) -> Transformer:
    return Transformer(describe(folder.name, folder), device=CPU, dtype=dtype, threads=1, packed=packed)


def dense(model: Transformer, texts: list[Int32], pooling: Pooling) -> Float32:
    vectors: Float32 = pooled(model.hidden(texts), pooling).numpy()
    return vectors


def pooling_of(folder: Path) -> Pooling:
    return describe(folder.name, folder).pooling


def tokens_of(folder: Path, texts: tuple[str, ...] = TEXTS) -> list[Int32]:
    return TextTokenizer(folder, 512)(texts).batch().rows()


def cosines(a: Float32, b: Float32) -> Float32:
    """Of each row of ``a`` with the same row of ``b``, both of any length."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.asarray((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))


@pytest.fixture(scope="module", params=["e5", "bge-m3"])
def folder(request: pytest.FixtureRequest, e5_tiny: Path, bge_m3_tiny: Path) -> Path:
    return {"e5": e5_tiny, "bge-m3": bge_m3_tiny}[request.param]


@pytest.fixture(scope="module")
def oracle(folder: Path) -> Float32:
    """The vectors of ``TEXTS`` as sentence-transformers computes them in float32, each text alone."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    return np.stack([model.encode(text) for text in TEXTS])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", AGREEMENT, ids=str)
def test_vectors_equal_those_of_sentence_transformers(
    folder: Path, oracle: Float32, dtype: torch.dtype, packed: bool
) -> None:
    vectors = dense(load(folder, dtype, packed=packed), tokens_of(folder), pooling_of(folder))
    assert cosines(vectors, oracle).min() > AGREEMENT[dtype]


def test_the_oracle_distinguishes_texts_and_poolings(folder: Path, oracle: Float32) -> None:
    """So that the agreement above means something: a wrong text or a wrong pooling does not reach it."""
    model, rows, right = load(folder), tokens_of(folder), pooling_of(folder)
    (wrong,) = set(Pooling) - {right}
    assert cosines(dense(model, rows[::-1], right), oracle).max() < 0.9999
    assert cosines(dense(model, rows, wrong), oracle).max() < 0.9999


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", INDEPENDENCE, ids=str)
def test_a_vector_does_not_depend_on_the_neighbours_or_their_order(
    folder: Path, dtype: torch.dtype, packed: bool
) -> None:
    model, rows, pooling = load(folder, dtype, packed=packed), tokens_of(folder), pooling_of(folder)
    alone = np.concatenate([dense(model, [row], pooling) for row in rows])
    order = np.random.default_rng(0).permutation(len(rows))
    together, shuffled = dense(model, rows, pooling), dense(model, [rows[i] for i in order], pooling)
    assert cosines(together, alone).min() > INDEPENDENCE[dtype]
    assert cosines(shuffled, alone[order]).min() > INDEPENDENCE[dtype]
    if dtype is torch.float32:
        np.testing.assert_allclose(together, alone, atol=1e-6)
        np.testing.assert_allclose(shuffled, alone[order], atol=1e-6)


@pytest.mark.parametrize("dtype", AGREEMENT, ids=str)
def test_vectors_are_float32_of_unit_length_on_the_host(folder: Path, dtype: torch.dtype) -> None:
    vectors = dense(load(folder, dtype), tokens_of(folder), pooling_of(folder))
    assert (vectors.dtype, vectors.shape) == (np.float32, (len(TEXTS), 32))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_text_as_long_as_the_limit_is_computed(e5_tiny: Path) -> None:
    model = load(e5_tiny)
    (row,) = tokens_of(e5_tiny, ("the " * 2000,))
    assert len(row) == describe(e5_tiny.name, e5_tiny).max_tokens == 512
    assert np.isfinite(dense(model, [row], Pooling.MEAN)).all()


# ------------------------------------------------------------------ weights that are not right


def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / folder.name))


def without_a_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def of_another_width(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))


def of_another_vocabulary(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] + 1}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (without_a_tensor, r"lack 1 tensors, among them 'encoder\.layer\.1\.output\.dense\.weight'"),
        (without_weights, "cannot be loaded"),
        (cut_short, "cannot be loaded"),
        (of_another_width, "cannot be loaded"),
        (of_another_vocabulary, "cannot be loaded"),
    ],
)
def test_missing_or_corrupt_weights_refuse_to_load(
    e5_tiny: Path, tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    folder = copied(e5_tiny, tmp_path)
    damage(folder)
    with pytest.raises(ModelLoadError, match=says) as caught:
        load(folder)
    assert str(folder) in caught.value.message
    assert "\n" not in caught.value.message


# ------------------------------------------------------------------ devices and types


@pytest.mark.parametrize(
    ("setting", "count", "device"),
    [("auto", 0, "cpu"), ("cpu", 2, "cpu"), ("cuda", 1, "cuda"), ("cuda:0", 1, "cuda:0"), ("cuda:1", 2, "cuda:1")],
)
def test_the_device_is_the_configured_one(
    monkeypatch: pytest.MonkeyPatch, setting: str, count: int, device: str
) -> None:
    see_cuda_devices(monkeypatch, count)
    assert choose_device(setting) == torch.device(device)


def test_a_free_choice_of_the_device_takes_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    see_cuda_devices(monkeypatch, 1)
    assert choose_device("auto").type == "cuda"


@pytest.mark.parametrize(("setting", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_configured_cuda_device_that_is_absent_is_an_error(
    monkeypatch: pytest.MonkeyPatch, setting: str, count: int
) -> None:
    see_cuda_devices(monkeypatch, count)
    with pytest.raises(ModelLoadError, match=f"device {setting!r} cannot be used: "):
        choose_device(setting)


@pytest.mark.parametrize("setting", ["gpu", "cuda0", "", "cpu:x"])
def test_an_unknown_device_is_an_error(setting: str) -> None:
    with pytest.raises(ModelLoadError, match="is unknown; use auto"):
        choose_device(setting)


def see_cuda_devices(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)


@pytest.mark.parametrize(
    ("setting", "in_hardware", "dtype"),
    [
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
        ("float32", True, torch.float32),
        ("bfloat16", False, torch.bfloat16),
        ("float16", False, torch.float16),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_bfloat16_is_chosen_only_where_the_hardware_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, device: str, setting: str, in_hardware: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(transformer_module, "_cpu_has_bfloat16", lambda: in_hardware)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: in_hardware or including_emulation)
    assert choose_dtype(setting, torch.device(device)) == dtype


def test_weights_are_kept_in_the_configured_type(e5_tiny: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model = load(e5_tiny, dtype)
        assert {parameter.dtype for parameter in model._model.parameters()} == {dtype}
        assert model.dtype is dtype


def test_the_number_of_threads_is_the_configured_one(e5_tiny: Path) -> None:
    before = torch.get_num_threads()
    source: ModelSource = describe("e5-tiny", e5_tiny)
    try:
        Transformer(source, device=CPU, dtype=torch.float32, threads=3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("flags", "capability", "expected"),
    [
        ("flags: avx2 avx512f avx512_bf16 amx_bf16 amx_tile", "AVX512", True),
        ("flags: avx2 avx512f avx512_bf16 amx_bf16 amx_tile", "AVX2", False),
        ("flags: avx2 avx512f avx512_bf16", "DEFAULT", False),
        ("flags: avx2 avx512f", "AVX512", False),
        ("Features: fp asimd bf16 i8mm", "SVE256", True),
        ("Features: fp asimd", "DEFAULT", False),
    ],
)
def test_a_cpu_computes_in_bfloat16_where_pytorch_uses_its_instructions(
    flags: str, capability: str, expected: bool
) -> None:
    assert computes_in_bfloat16(flags, capability) is expected
