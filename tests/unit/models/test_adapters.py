"""Adapters on a shared base. peft's own model on the same folder is the oracle."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from serve_app.domain.embeddings import Float32
from serve_app.domain.errors import ModelLoadError
from serve_app.domain.profiles import Pooling
from serve_app.models.heads import pooled
from serve_app.models.model_source import describe
from serve_app.models.transformer import Transformer
from tests.unit.models.fine_tune_examples import build_adapter

TEXTS = [np.array([0, *ids, 2], np.int32) for ids in ([10, 11, 12], [13], [14, 15, 16, 17, 18, 19, 20])]
ADAPTERS: dict[str, dict[str, Any]] = {"wide": {"rank": 8}, "narrow": {"rank": 2, "layers": ("query", "value")}}
AGREEMENT = 0.9999  # of cosines in float32
AGREEMENT_BFLOAT16 = 0.999  # it keeps 8 bits of a number, and the adapters here are larger than any that was trained
EXACT = 1e-6

Damage = Callable[[Path], None]


def load(base: Path, dtype: torch.dtype = torch.float32, *, packed: bool = False) -> Transformer:
    source = describe(base.name, base)
    return Transformer(source, device=torch.device("cpu"), dtype=dtype, threads=1, packed=packed)


def vectors(model: Transformer, adapter: str | None = None) -> Float32:
    found: Float32 = pooled(model.hidden(TEXTS, adapter), Pooling.MEAN).numpy()
    return found


def cosines(a: Float32, b: Float32) -> Float32:
    return np.asarray((a * b).sum(1))


@pytest.fixture(scope="module")
def folders(e5_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("adapters")
    return {
        name: build_adapter(place / name, e5_tiny, seed=seed, **options)
        for seed, (name, options) in enumerate(ADAPTERS.items())
    }


@pytest.fixture(scope="module")
def expected(e5_tiny: Path, folders: dict[str, Path]) -> dict[str | None, Float32]:
    """The vectors of ``TEXTS`` of each adapter as peft computes them, each text alone; None is the base."""
    from peft import PeftModel
    from transformers import AutoModel

    def of(model: Any) -> Float32:
        rows = []
        with torch.inference_mode():
            for ids in TEXTS:
                states = model(input_ids=torch.from_numpy(ids)[None].long()).last_hidden_state[0].numpy()
                rows.append(states.mean(0) / np.linalg.norm(states.mean(0)))
        return np.stack(rows)

    found: dict[str | None, Float32] = {None: of(AutoModel.from_pretrained(e5_tiny).eval())}
    for name, folder in folders.items():
        found[name] = of(PeftModel.from_pretrained(AutoModel.from_pretrained(e5_tiny), folder).eval())
    return found


def test_the_oracle_distinguishes_adapters_and_base(expected: dict[str | None, Float32]) -> None:
    for one, other in ((None, "wide"), (None, "narrow"), ("wide", "narrow")):
        assert cosines(expected[one], expected[other]).max() < 0.99


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapters_vectors_are_those_of_peft(
    e5_tiny: Path, folders: dict[str, Path], expected: dict[str | None, Float32], name: str, packed: bool
) -> None:
    model = load(e5_tiny, packed=packed)
    assert cosines(vectors(model, model.adapters.load(folders[name])), expected[name]).min() > AGREEMENT


def test_the_base_computes_the_same_before_beside_and_after_adapters(e5_tiny: Path, folders: dict[str, Path]) -> None:
    model = load(e5_tiny)
    before = vectors(model)
    handles = []
    for folder in folders.values():
        handles.append(model.adapters.load(folder))
        np.testing.assert_allclose(vectors(model), before, atol=EXACT)
        vectors(model, handles[-1])
        np.testing.assert_allclose(vectors(model), before, atol=EXACT)
    for handle in handles:
        model.adapters.unload(handle)
        np.testing.assert_allclose(vectors(model), before, atol=EXACT)


@pytest.mark.parametrize("seed", range(4))
def test_adapters_come_go_and_work_in_any_order_without_disturbing_each_other(
    e5_tiny: Path, folders: dict[str, Path], expected: dict[str | None, Float32], seed: int
) -> None:
    draw, model = random.Random(seed), load(e5_tiny)
    loaded: list[tuple[str, str]] = []
    for _ in range(25):
        if not loaded or (len(loaded) < 4 and draw.random() < 0.3):
            name = draw.choice(list(folders))
            loaded.append((name, model.adapters.load(folders[name])))
        elif draw.random() < 0.3:
            model.adapters.unload(loaded.pop(draw.randrange(len(loaded)))[1])
        for which, handle in draw.sample([(None, None), *loaded], min(2, len(loaded))):
            assert cosines(vectors(model, handle), expected[which]).min() > AGREEMENT


def test_loading_keeps_the_active_adapter(
    e5_tiny: Path, folders: dict[str, Path], expected: dict[str | None, Float32]
) -> None:
    model = load(e5_tiny)
    first = model.adapters.load(folders["narrow"])
    model.adapters.use(first)
    model.adapters.load(folders["wide"])
    assert cosines(vectors(model, first), expected["narrow"]).min() > AGREEMENT


@pytest.mark.parametrize("at_work", ["narrow", None])
def test_a_load_that_fails_at_its_end_keeps_the_active_adapter(
    e5_tiny: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, at_work: str | None
) -> None:
    """As when a device runs out of memory: by then peft has put the newcomer to work, and falls back to another."""
    model = load(e5_tiny)
    handles: dict[str | None, str | None] = {name: model.adapters.load(folder) for name, folder in folders.items()}
    handles[None] = None
    before = vectors(model, handles[at_work])
    whole = model._model.load_adapter

    def breaks(*args: Any, **options: Any) -> Any:
        whole(*args, **options)
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(model._model, "load_adapter", breaks)
    with pytest.raises(ModelLoadError):
        model.adapters.load(folders["wide"])
    np.testing.assert_allclose(vectors(model, handles[at_work]), before, atol=EXACT)


def test_an_unloaded_adapter_leaves_no_weights(e5_tiny: Path, folders: dict[str, Path]) -> None:
    model = load(e5_tiny)
    before = model.bytes
    handles = [model.adapters.load(folder) for folder in folders.values()]
    assert model.bytes == before + sum(map(model.adapters.bytes, handles))
    vectors(model, handles[0])
    for handle in handles:
        model.adapters.unload(handle)
    assert model.bytes == before


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)], ids=str)
@pytest.mark.parametrize("name", ADAPTERS)
def test_the_bytes_of_an_adapter_are_those_of_its_tensors_in_the_models_dtype(
    e5_tiny: Path, folders: dict[str, Path], name: str, dtype: torch.dtype, size: int
) -> None:
    model = load(e5_tiny, dtype)
    state = load_file(folders[name] / "adapter_model.safetensors")
    served = sum(weight.numel() for key, weight in state.items() if "pooler" not in key)
    others = [model.adapters.load(folder) for folder in folders.values()]
    assert model.adapters.bytes(model.adapters.load(folders[name])) == served * size
    assert len({*others}) == len(folders)


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_takes_the_type_of_a_bfloat16_base(
    e5_tiny: Path, folders: dict[str, Path], expected: dict[str | None, Float32], name: str
) -> None:
    model = load(e5_tiny, torch.bfloat16)
    handle = model.adapters.load(folders[name])
    assert cosines(vectors(model, handle), expected[name]).min() > AGREEMENT_BFLOAT16
    assert {parameter.dtype for parameter in model._model.parameters()} == {torch.bfloat16}


# ------------------------------------------------------------------ adapters that are not right


def without_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def without_configuration(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


def with_half_a_configuration(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": ')


def cut_short(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def without_a_tensor(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    state.pop(next(name for name in state if "layer.0.attention.self.query.lora_B" in name))
    save_file(state, path)


def of_a_deeper_model(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    more = {name.replace("layer.1", "layer.2"): weight.clone() for name, weight in state.items() if "layer.1" in name}
    save_file(state | more, path)


def configured(**changes: object) -> Damage:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


BROKEN: dict[str, tuple[Damage, str]] = {
    "no weights": (without_weights, "cannot be loaded"),
    "no configuration": (without_configuration, "cannot be loaded"),
    "half a configuration": (with_half_a_configuration, "cannot be loaded"),
    "half a file": (cut_short, "cannot be loaded"),
    "a tensor is missing": (without_a_tensor, r"does not fit its base: 1 tensors .*layer\.0\..*query\.lora_B"),
    "layers that the base lacks": (of_a_deeper_model, r"does not fit its base: 12 tensors .*layer\.2\."),
    "another rank": (configured(r=5), "cannot be loaded"),
    "layers of other names": (configured(target_modules=["nothing"]), "cannot be loaded"),
    "more layers than tensors": (configured(target_modules=["query", "word_embeddings"]), "does not fit its base"),
    "no such kind": (configured(peft_type="NONE"), "cannot be loaded"),
}


@pytest.mark.parametrize("state", ["nothing loaded", "another idle", "another active"])
@pytest.mark.parametrize(("damage", "says"), BROKEN.values(), ids=BROKEN)
def test_a_broken_adapter_is_refused_and_base_and_others_stay_intact(
    e5_tiny: Path,
    folders: dict[str, Path],
    expected: dict[str | None, Float32],
    tmp_path: Path,
    damage: Damage,
    says: str,
    state: str,
) -> None:
    broken = Path(shutil.copytree(folders["wide"], tmp_path / "broken"))
    damage(broken)
    model = load(e5_tiny)
    other = None if state == "nothing loaded" else model.adapters.load(folders["narrow"])
    model.adapters.use(other if state == "another active" else None)
    before = model.bytes
    with pytest.raises(ModelLoadError, match=says) as caught:
        model.adapters.load(broken)
    assert str(broken) in caught.value.message
    assert "\n" not in caught.value.message
    assert model.bytes == before
    active_first = [other, None] if state == "another active" else [None, other]
    for handle in active_first:
        assert cosines(vectors(model, handle), expected["narrow" if handle else None]).min() > AGREEMENT
    assert cosines(vectors(model, model.adapters.load(folders["wide"])), expected["wide"]).min() > AGREEMENT
