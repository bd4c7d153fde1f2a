from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.domain.request_limits import Limits
from serve_app.settings.batching_settings import BatchingSettings
from serve_app.settings.deployment_settings import DeploymentSettings
from serve_app.settings.environment import ENVIRONMENT
from serve_app.settings.model_settings import ModelSettings
from serve_app.settings.service_settings import Settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ENVIRONMENT:
        monkeypatch.delenv(variable, raising=False)


YAML: dict[str, Any] = {
    "models_dir": "/srv/yaml",
    "models": [{"name": "yaml-e5", "family": "e5", "device": "cpu", "dtype": "float32"}, {"name": "second-e5"}],
}
WORDS = {
    "MODEL_NAME": ("name", "env-e5"),
    "MODEL_FAMILY": ("family", "bge-m3"),
    "MODEL_DEVICE": ("device", "cuda:0"),
    "MODEL_DTYPE": ("dtype", "bfloat16"),
}


def test_the_defaults_hold() -> None:
    settings = Settings()
    assert [model.name for model in settings.models] == ["intfloat/multilingual-e5-large"]
    assert settings.models_dir == Path("models").absolute()
    assert settings.limits == Limits()


def test_yaml_beats_the_defaults() -> None:
    settings = Settings(**YAML)
    assert settings.models_dir == Path("/srv/yaml")
    first, second = settings.models
    assert (first.name, first.family, first.device, first.dtype) == ("yaml-e5", "e5", "cpu", "float32")
    assert (second.name, second.family, second.device, second.dtype) == ("second-e5", None, "auto", "auto")


@pytest.mark.parametrize("variable", WORDS)
def test_the_environment_beats_yaml_for_the_first_model_and_for_nothing_else(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    field, word = WORDS[variable]
    expected = Settings(**YAML).model_dump()
    expected["models"][0][field] = word
    monkeypatch.setenv(variable, word)
    assert Settings(**YAML).model_dump() == expected


def test_the_environment_beats_yaml_for_the_models_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS_DIR", "/srv/env")
    assert Settings(**YAML).models_dir == Path("/srv/env")


@pytest.mark.parametrize("yaml", [{}, {"training": {"jobs_dir": "/srv/yaml", "seed": 7}}])
def test_the_environment_beats_yaml_for_the_jobs_folder(monkeypatch: pytest.MonkeyPatch, yaml: dict[str, Any]) -> None:
    monkeypatch.setenv("JOBS_DIR", "/srv/env")
    training = Settings(**yaml).training
    assert training.jobs_dir == Path("/srv/env")
    assert training.seed == yaml.get("training", {}).get("seed", 42)


def test_the_environment_beats_the_defaults_without_any_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_NAME", "env-e5")
    assert [model.name for model in Settings().models] == ["env-e5"]
    assert [model.name for model in Settings.model_validate({}).models] == ["env-e5"]


def test_every_variable_that_is_listed_is_tested() -> None:
    assert {*WORDS, "MODELS_DIR", "JOBS_DIR"} == set(ENVIRONMENT)


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Settings(**YAML)
    for variable in ENVIRONMENT:
        monkeypatch.setenv(variable, "")
    assert Settings(**YAML) == before


def test_the_yaml_that_was_given_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_NAME", "env-e5")
    given: dict[str, Any] = {"models": [{"name": "yaml-e5"}]}
    Settings(**given)
    assert given == {"models": [{"name": "yaml-e5"}]}


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"model_dir": "x"}, "model_dir"),
        ({"models": [{"nam": "my-e5"}]}, "models.0.nam"),
        ({"models": [{"batching": {"max_batch_token": 5}}]}, "models.0.batching.max_batch_token"),
        ({"ingress": {"replicas": 2}}, "ingress.replicas"),
        ({"limits": {"max_item": 5}}, "limits.max_item"),
    ],
)
def test_a_typo_is_refused_wherever_it_stands(values: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**values)
    assert where in [".".join(map(str, error["loc"])) for error in caught.value.errors()]


@pytest.mark.parametrize(
    "values",
    [
        {"models": [{"dtype": "int8"}]},
        {"models": [{"batching": {"max_batch_tokens": "many"}}]},
        {"models": [{"num_replicas": 0}]},
        {"models": [{"gpu_share": 0}]},
        {"ingress": {"num_cpus": -1}},
        {"models": "my-e5"},
        {"models": []},
        {"models": 5},
        {"models": [None]},
        {"models": None},
        {"rerankers": [{"kind": "bm25"}]},
        {"rerankers": [{"dense_only": True}]},
        {"models": {"name": "my-e5"}},
        {"training": None},
        {"training": {"gpus_per_worker": 2}},
        {"training": {"gpus_per_worker": 0.5, "num_workers": 2}},
        {"training": {"gpu_share": 0}},
    ],
)
@pytest.mark.parametrize("environment", [{}, {"MODEL_NAME": "env-e5", "JOBS_DIR": "/srv/env"}])
def test_an_invalid_value_is_refused(
    values: dict[str, Any], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError):
        Settings(**values)


def test_one_mistake_is_one_error() -> None:
    for values in ({"models": []}, {"models": [{"name": "my-e5", "dtype": "int8"}]}, {"models": [{"nam": "my-e5"}]}):
        with pytest.raises(ValidationError) as caught:
            Settings(**values)  # type: ignore[arg-type]
        assert caught.value.error_count() == 1


def test_a_bad_word_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_DTYPE", "int8")
    with pytest.raises(ValidationError, match="dtype"):
        Settings()


def test_two_models_of_one_name_are_refused_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match=r"a name of its own.*my-e5, other-e5, my-e5"):
        Settings(models=[{"name": "my-e5"}, {"name": "other-e5"}, {"name": "my-e5"}])  # type: ignore[arg-type]
    monkeypatch.setenv("MODEL_NAME", "second-e5")
    with pytest.raises(ValidationError, match="second-e5, second-e5"):
        Settings(**YAML)


def test_aliases_lead_to_their_models_and_a_model_that_embeds_and_reranks_may_name_one_twice() -> None:
    settings = Settings(
        models=[{"name": "my-e5", "aliases": ["text-embedding-3-small", "e5"]}, {"name": "m3", "aliases": ["both"]}],  # type: ignore[arg-type]
        rerankers=[{"name": "m3", "aliases": ["both", "rerank-v3.5"]}],  # type: ignore[arg-type]
    )
    assert settings.aliases == {"text-embedding-3-small": "my-e5", "e5": "my-e5", "both": "m3", "rerank-v3.5": "m3"}


@pytest.mark.parametrize(
    ("models", "rerankers", "words"),
    [
        ([{"name": "a", "aliases": ["b"]}, {"name": "b"}], [], "'b' of 'a' is the name of a configured model"),
        ([{"name": "a", "aliases": ["a"]}], [], "'a' of 'a' is the name of a configured model"),
        ([{"name": "a", "aliases": ["r"]}], [{"name": "r"}], "'r' of 'a' is the name of a configured model"),
        ([{"name": "a", "aliases": ["x"]}], [{"name": "r", "aliases": ["x"]}], "'x' is given to 'a' and to 'r'"),
        ([{"name": "a", "aliases": ["two words"]}], [], "'two words' cannot be the name of a model"),
        ([{"name": "a", "aliases": [""]}], [], "'' cannot be the name of a model"),
    ],
)
def test_an_alias_that_is_taken_or_no_name_is_refused_by_name(
    models: list[dict[str, Any]], rerankers: list[dict[str, Any]], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        Settings(models=models, rerankers=rerankers)  # type: ignore[arg-type]


def test_settings_are_immutable() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.models_dir = Path("/elsewhere")  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.limits.max_items = 5  # type: ignore[misc]


def test_the_models_folder_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/user")
    assert Settings(models_dir=Path("here")).models_dir == tmp_path / "here"
    assert Settings(models_dir=Path("~/models")).models_dir == Path("/home/user/models")


@pytest.mark.parametrize(
    ("batching", "device", "bounds"),
    [
        ({}, "cpu", (384, 16)),
        ({}, "cuda", (16_384, 1_024)),
        ({}, "cuda:1", (16_384, 1_024)),
        ({"max_batch_tokens": 300}, "cpu", (300, 16)),
        ({"max_padding_tokens": 7}, "cuda", (16_384, 7)),
        ({"max_batch_tokens": 300, "max_padding_tokens": 0}, "cuda", (300, 0)),
    ],
)
def test_bounds_that_are_not_given_follow_from_the_device(
    batching: dict[str, Any], device: str, bounds: tuple[int, int]
) -> None:
    assert BatchingSettings(**batching).for_device(device) == bounds


@pytest.mark.parametrize(
    ("batching", "device", "slowest"),
    [({}, "cpu", 2), ({}, "cuda:1", 100), ({"min_tokens_per_s": 7}, "cpu", 7), ({"min_tokens_per_s": 7}, "cuda", 7)],
)
def test_the_slowest_speed_of_a_forward_follows_from_the_device(
    batching: dict[str, Any], device: str, slowest: float
) -> None:
    assert BatchingSettings(**batching).min_speed_for_device(device) == slowest


@pytest.mark.parametrize(
    ("values", "most"),
    [
        ({}, 1),
        ({"num_replicas": 3}, 3),
        ({"autoscaling_config": {"min_replicas": 1, "max_replicas": 5}}, 5),
        ({"num_replicas": 3, "autoscaling_config": {"max_replicas": 5}}, 5),
    ],
)
def test_the_largest_number_of_replicas_is_known(values: dict[str, Any], most: int) -> None:
    assert DeploymentSettings(**values).max_replicas == most


def test_settings_are_the_same_after_the_way_through_plain_values() -> None:
    settings = Settings(**YAML)
    assert Settings.model_validate(settings.model_dump()) == settings
    assert Settings.model_validate(settings) is settings
    assert Settings(models=(ModelSettings(name="my-e5"),)).models[0].name == "my-e5"


@pytest.mark.parametrize(
    "model",
    [
        {"threads": 0},
        {"num_gpus": -0.5},
        {"batching": {"max_batch_tokens": 0}},
        {"batching": {"max_padding_tokens": -1}},
        {"batching": {"max_backlog_tokens": 0}},
    ],
)
def test_meaningless_numbers_are_refused(model: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"models": [{"name": "e5-a", **model}]})
