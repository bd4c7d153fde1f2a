from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from serve_app.domain.errors import ModelLoadError
from serve_app.domain.profiles import BGE_M3, E5, Pooling
from serve_app.models.model_source import ModelSource, describe, find_model

BERT = {"model_type": "bert", "hidden_size": 32, "max_position_embeddings": 512, "pad_token_id": 0}
XLM_R = {"model_type": "xlm-roberta", "hidden_size": 32, "max_position_embeddings": 514, "pad_token_id": 1}


def write_model(folder: Path, config: object = BERT, **files: object) -> Path:
    """A model folder without weights; a file's name in ``files`` has ``__`` for ``/`` and no ``.json``."""
    contents = {"config": config, "tokenizer": {}, **files}
    for name, content in contents.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def described(tmp_path: Path, name: str = "my-e5", config: object = BERT, **files: object) -> ModelSource:
    return describe(name, write_model(tmp_path / name, config, **files))


# ------------------------------------------------------------------ what a folder says


def test_a_plain_folder_is_described_by_its_configuration_and_its_name(tmp_path: Path) -> None:
    source = described(tmp_path)
    assert source == ModelSource("my-e5", tmp_path / "my-e5", E5, Pooling.MEAN, dimension=32, max_tokens=512)


def test_the_tiny_models_are_described_as_what_they_are(e5_tiny: Path, bge_m3_tiny: Path) -> None:
    e5, m3 = describe("e5-tiny", e5_tiny), describe("bge-m3-tiny", bge_m3_tiny)
    assert (e5.profile, e5.pooling, e5.dimension, e5.max_tokens) == (E5, Pooling.MEAN, 32, 512)
    assert (m3.profile, m3.pooling, m3.dimension, m3.max_tokens) == (BGE_M3, Pooling.CLS, 32, 8192)


def test_a_manifest_beats_the_guess_from_the_name(tmp_path: Path) -> None:
    assert described(tmp_path, "my-e5", manifest={"family": "bge-m3"}).profile is BGE_M3
    assert described(tmp_path, "law", manifest={"family": "e5"}).profile is E5


def test_the_setting_beats_the_manifest(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "my-e5", manifest={"family": "e5"})
    assert describe("my-e5", folder, family="bge-m3").profile is BGE_M3


def test_a_manifest_with_an_unknown_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="unknown model family 'gte'"):
        described(tmp_path, manifest={"family": "gte"})


def test_a_name_without_a_family_is_refused_with_the_setting_that_helps(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="`family:`"):
        described(tmp_path, "law")


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, Pooling.CLS),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, Pooling.MEAN),
        ({"pooling_mode": "cls"}, Pooling.CLS),
        ({"pooling_mode": "mean"}, Pooling.MEAN),
    ],
)
def test_pooling_comes_from_the_folder_in_the_old_and_the_new_form(
    tmp_path: Path, config: dict[str, Any], pooling: Pooling
) -> None:
    assert described(tmp_path, "my-e5", **{"1_Pooling__config": config}).pooling is pooling
    assert described(tmp_path, "my-bge-m3", **{"1_Pooling__config": config}).pooling is pooling


def test_without_pooling_in_the_folder_the_family_decides(tmp_path: Path) -> None:
    assert described(tmp_path, "my-e5").pooling is Pooling.MEAN
    assert described(tmp_path, "my-bge-m3").pooling is Pooling.CLS


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True},
        {"pooling_mode": "max"},
        {"pooling_mode": ["mean", "max"]},
        {"pooling_mode": 3},
    ],
)
def test_a_pooling_that_is_not_served_is_refused_not_replaced(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(ModelLoadError, match=r"1_Pooling/config\.json.* not served; mean and cls are"):
        described(tmp_path, **{"1_Pooling__config": config})


@pytest.mark.parametrize(
    ("name", "config", "sentence", "max_tokens"),
    [
        ("my-e5", BERT, {}, 512),
        ("my-e5", BERT | {"max_position_embeddings": 128}, {}, 128),
        ("my-e5", BERT | {"max_position_embeddings": 8192}, {}, 512),  # the family's limit
        ("my-e5", BERT, {"max_seq_length": 256}, 256),
        ("my-e5", BERT, {"max_seq_length": None}, 512),
        ("my-e5", XLM_R, {}, 512),  # 514 positions, of which two are taken
        ("my-e5", XLM_R | {"max_position_embeddings": 130}, {}, 128),
        ("my-bge-m3", XLM_R | {"max_position_embeddings": 8194}, {}, 8192),
        ("my-bge-m3", {"model_type": "bert", "hidden_size": 32}, {}, 8192),  # says nothing of positions
    ],
)
def test_the_longest_text_is_the_smallest_of_all_limits(
    tmp_path: Path, name: str, config: dict[str, Any], sentence: dict[str, Any], max_tokens: int
) -> None:
    assert described(tmp_path, name, config, sentence_bert_config=sentence).max_tokens == max_tokens


# ------------------------------------------------------------------ folders with parts missing


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "my-e5")
    (folder / "config.json").unlink()
    with pytest.raises(ModelLoadError) as caught:
        describe("my-e5", folder)
    assert str(folder / "config.json") in caught.value.message


def test_a_missing_tokenizer_is_named_with_the_way_to_make_it(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "my-e5")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelLoadError) as caught:
        describe("my-e5", folder)
    assert f"{folder} has no tokenizer.json" in caught.value.message
    assert "save_pretrained" in caught.value.message


@pytest.mark.parametrize("name", ["config", "manifest", "sentence_bert_config", "1_Pooling__config"])
@pytest.mark.parametrize("content", ['{"a": ', "[1]", "\x00"])
def test_broken_json_is_refused_and_named(tmp_path: Path, name: str, content: str) -> None:
    folder = write_model(tmp_path / "my-e5", **{"config": BERT, name: content})
    with pytest.raises(ModelLoadError) as caught:
        describe("my-e5", folder)
    assert f"{folder / name.replace('__', '/')}.json cannot be read" in caught.value.message


@pytest.mark.parametrize("config", [{}, {"model_type": "bert"}, {"hidden_size": None}, {"hidden_size": "wide"}])
def test_a_configuration_without_a_width_is_refused_and_named(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(ModelLoadError, match=r"config\.json has no hidden_size"):
        described(tmp_path, config=config)


# ------------------------------------------------------------------ names


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../my-e5",
        "a/../my-e5",
        "/etc/my-e5",
        "my-e5/",
        "a/b/e5",
        "~/e5",
        "e5\n",
        ".hidden-e5",
        "e5 x",
        "ü-e5",
    ],
)
def test_a_name_that_leads_out_of_the_folder_is_an_error_before_anything_is_opened(tmp_path: Path, name: str) -> None:
    write_model(tmp_path / "my-e5")
    with pytest.raises(ModelLoadError, match="is not a model name"):
        find_model(name, tmp_path / "models")


@pytest.mark.parametrize("name", ["/data/models/my-e5", "models/intfloat/my-e5", "~/my-e5", "./my-e5"])
def test_a_path_as_a_name_is_an_error_that_names_models_dir(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        find_model(name, tmp_path)
    parent = str(Path(name).expanduser().absolute().parent)
    assert f"it is a path; set MODELS_DIR (or `models_dir:`) to {parent!r}" in caught.value.message
    assert "MODEL_NAME (or `name:`) to 'my-e5'" in caught.value.message


def test_the_models_folder_is_not_an_owner_on_the_hub(tmp_path: Path, hub: Hub) -> None:
    write_model(tmp_path / "models" / "my-e5")
    with pytest.raises(ModelLoadError, match=r"no model 'models/my-e5' .* but 'my-e5' is there"):
        find_model("models/my-e5", tmp_path / "models")
    assert hub.asked == []


def test_a_name_with_an_owner_is_a_folder_in_a_folder(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "intfloat" / "e5-base")
    assert find_model("intfloat/e5-base", tmp_path).folder == folder


# ------------------------------------------------------------------ the hub


class Hub:
    """In place of ``snapshot_download``: gives a folder, or raises."""

    def __init__(self, outcome: Path | Exception) -> None:
        self.outcome = outcome
        self.asked: list[tuple[str, list[str]]] = []

    def __call__(self, name: str, *, allow_patterns: list[str]) -> str:
        self.asked.append((name, allow_patterns))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return str(self.outcome)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    fake = Hub(LocalEntryNotFoundError("offline"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    return fake


def test_a_folder_is_used_without_asking_the_hub(tmp_path: Path, hub: Hub) -> None:
    write_model(tmp_path / "my-e5")
    assert find_model("my-e5", tmp_path).folder == tmp_path / "my-e5"
    assert hub.asked == []


@pytest.mark.parametrize(
    "error",
    [LocalEntryNotFoundError("offline"), ConnectionError("refused\nsecond line"), OSError("Network is unreachable")],
)
def test_the_error_for_an_unreachable_hub_names_the_place_for_the_folder(
    tmp_path: Path, hub: Hub, error: Exception
) -> None:
    hub.outcome = error
    with pytest.raises(ModelLoadError) as caught:
        find_model("intfloat/multilingual-e5-large", tmp_path)
    message = caught.value.message
    assert "cannot be reached" in message
    assert str(tmp_path / "intfloat" / "multilingual-e5-large") in message
    assert "MODELS_DIR" in message
    assert type(error).__name__ in message
    assert "\n" not in message


def test_a_missing_model_is_an_error_that_names_both_places(tmp_path: Path, hub: Hub) -> None:
    hub.outcome = RepositoryNotFoundError.__new__(RepositoryNotFoundError)
    with pytest.raises(ModelLoadError, match="none on the model hub") as caught:
        find_model("intfloat/multilingual-e5-larg", tmp_path)
    assert str(tmp_path / "intfloat" / "multilingual-e5-larg") in caught.value.message


def test_an_unknown_family_is_refused_before_anything_is_downloaded(tmp_path: Path, hub: Hub) -> None:
    with pytest.raises(ModelLoadError, match="`family:`"):
        find_model("acme/law", tmp_path)
    assert hub.asked == []


def test_the_ingress_downloads_no_weights(tmp_path: Path, hub: Hub) -> None:
    hub.outcome = write_model(tmp_path / "cache")
    assert find_model("acme/my-e5", tmp_path, weights=False).folder == tmp_path / "cache"
    ((name, patterns),) = hub.asked
    assert name == "acme/my-e5"
    assert not [pattern for pattern in patterns if not pattern.endswith(".json")]


def test_safetensors_are_preferred_to_pickles(tmp_path: Path, hub: Hub) -> None:
    hub.outcome = write_model(tmp_path / "cache")
    (hub.outcome / "model.safetensors").touch()
    find_model("acme/my-e5", tmp_path)
    assert [pattern for _, patterns in hub.asked for pattern in patterns if ".bin" in pattern] == []


def test_a_repository_without_safetensors_falls_back_to_the_other_weights(tmp_path: Path, hub: Hub) -> None:
    hub.outcome = write_model(tmp_path / "cache")
    find_model("acme/my-e5", tmp_path)
    assert len(hub.asked) == 2
    assert "*.bin" in hub.asked[1][1]
